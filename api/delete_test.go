package api

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/removal"
	"github.com/comfyd/comfyd/internal/visibility"
)

var attrInputs = temporal.NewSearchAttributeKeyKeywordList(comfy.AttrInputs)

// finished is a completed job with one image, told once already.
func (h *harness) finished() (string, *fakeRun) {
	h.t.Helper()
	id, run := h.submitted()
	h.complete(run, []byte("image"))
	require.Equal(h.t, 200, h.do("GET", "/status/"+id, "").status)
	return id, run
}

func (h *harness) requireGone(id string) {
	h.t.Helper()
	for _, call := range [][2]string{{"GET", "/status/"}, {"GET", "/jobs/"}, {"POST", "/cancel/"}, {"DELETE", "/jobs/"}} {
		h.requireError(h.do(call[0], call[1]+id, ""), 404, CodeNotFound)
	}
}

func TestDeleteOpenJobHoldsUntilItEnds(t *testing.T) {
	h := newTunedHarness(t, func(s *Server) { s.deleteWait = 100 * time.Millisecond })
	id, run := h.submitted()
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseRunning} })
	for range 2 {
		a := h.do("DELETE", "/jobs/"+id, "")
		require.Equal(t, 202, a.status)
		require.Equal(t, "canceling", a.body["phase"])
	}
	require.True(t, run.extended.CancelRequested)
	require.Empty(t, h.store.keys("removals/"), "nothing is deleted before the end")
	run.failure = endError(t, errors.New("x"))
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_CANCELED)
	require.Equal(t, 204, h.do("DELETE", "/jobs/"+id, "").status)
	h.requireGone(id)
}

// TestDeletedIsGoneWhileTemporalLingers: Temporal takes up to a minute to forget.
func TestDeletedIsGoneWhileTemporalLingers(t *testing.T) {
	h := newHarness(t)
	h.temporal.lingers = true
	a := h.submit(`{"workflow":`+graphJSON+`}`, "Idempotency-Key", "k")
	id := a.body["id"].(string)
	run, err := h.temporal.get(id)
	require.NoError(t, err)
	h.complete(run, []byte("image"))
	require.Equal(t, 200, h.do("GET", "/status/"+id, "").status)
	h.requireError(h.do("DELETE", "/jobs/"+id, "", "Authorization", "Bearer "+keyB), 404, CodeNotFound)
	require.Equal(t, 204, h.do("DELETE", "/jobs/"+id, "").status)
	h.requireGone(id)
	require.Empty(t, h.store.keys("outputs/"))
	busy := h.submit(`{"workflow":`+graphJSON+`}`, "Idempotency-Key", "k")
	h.requireError(busy, 503, CodeUnavailable)
	require.NotEmpty(t, busy.header.Get("Retry-After"))
	h.temporal.lists = func(*workflowservice.ListWorkflowExecutionsRequest) *workflowservice.ListWorkflowExecutionsResponse {
		return &workflowservice.ListWorkflowExecutionsResponse{Executions: []*workflowpb.WorkflowExecutionInfo{run.info}}
	}
	require.Empty(t, h.do("GET", "/jobs", "").body["jobs"])
	h.server.deleted.Purge() // as in another replica
	require.Empty(t, h.do("GET", "/jobs", "").body["jobs"])
	h.server.deleted.Purge()
	h.requireGone(id)
	h.temporal.set(id, nil)
	require.Equal(t, 202, h.submit(`{"workflow":`+graphJSON+`}`, "Idempotency-Key", "k").status)
	require.Equal(t, 202, h.do("GET", "/status/"+id, "").status, "the new job of this key")
}

func TestDeleteFailsWhole(t *testing.T) {
	h := newHarness(t)
	id, _ := h.finished()
	h.store.putErr = errors.New("full")
	h.requireError(h.do("DELETE", "/jobs/"+id, ""), 503, CodeStorage)
	require.Equal(t, 200, h.do("GET", "/status/"+id, "").status, "nothing was done")
	require.Len(t, h.store.keys("outputs/"), 1)
	h.store.putErr = nil

	h.temporal.fail(serviceerror.NewUnavailable("away"))
	h.requireError(h.do("DELETE", "/jobs/"+id, ""), 503, CodeUnavailable)
	require.Len(t, h.store.keys("outputs/"), 1)
	h.temporal.fail(nil)

	// From the note on it is deleted, whatever comes; a sweep does the rest.
	h.temporal.deleteErr = serviceerror.NewUnavailable("away")
	require.Equal(t, 204, h.do("DELETE", "/jobs/"+id, "").status)
	h.requireGone(id)
	require.Len(t, h.store.keys("removals/"), 1)
	require.Contains(t, h.log.String(), "a sweep has to finish the deletion")
}

// TestMemoryOfEndedJobs: a job that is gone is told for five seconds at most, and however many ask, Temporal is asked once.
func TestMemoryOfEndedJobs(t *testing.T) {
	h := newHarness(t)
	now := time.Now()
	h.setClock(now)
	forgotten, _ := h.finished()
	elsewhere, run := h.finished()
	h.setClock(now.Add(recheckAfter - time.Millisecond))
	h.temporal.set(forgotten, nil)
	other := &removal.Remover{Temporal: h.temporal, Store: h.store} // in another replica
	h.temporal.lingers = true
	require.NoError(t, other.Remove(t.Context(), removal.Job{ID: elsewhere, RunID: run.info.Execution.RunId, Tenant: "a"}))
	asked := h.temporal.describes.Load()
	for _, id := range []string{forgotten, elsewhere} {
		require.Equal(t, 200, h.do("GET", "/status/"+id, "").status)
	}
	require.Equal(t, asked, h.temporal.describes.Load(), "Temporal is left alone meanwhile")
	h.setClock(now.Add(recheckAfter))
	h.requireError(h.do("GET", "/status/"+forgotten, ""), 404, CodeNotFound)
	h.requireError(h.do("GET", "/status/"+elsewhere, ""), 404, CodeNotFound)

	h.temporal.lingers = false
	id, _ := h.finished()
	asked = h.temporal.describes.Load()
	h.setClock(now.Add(3 * recheckAfter))
	h.temporal.hold = make(chan struct{})
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() { require.Equal(t, http.StatusOK, h.do("GET", "/status/"+id, "").status) })
	}
	require.Eventually(t, func() bool { return h.temporal.describes.Load() > asked }, 30*time.Second, time.Millisecond)
	close(h.temporal.hold)
	all.Wait()
	require.LessOrEqual(t, h.temporal.describes.Load()-asked, int64(2), "one question, or two where some came late")

	h.temporal.fail(serviceerror.NewUnavailable("away"))
	h.setClock(now.Add(5 * recheckAfter))
	require.Equal(t, 200, h.do("GET", "/status/"+id, "").status, "what is remembered counts while Temporal is away")
}

// TestAStoreThatHangsKeepsNoStatus: how a job has ended stands in Temporal.
func TestAStoreThatHangsKeepsNoStatus(t *testing.T) {
	h := newTunedHarness(t, func(s *Server) { s.patience.note = 50 * time.Millisecond })
	id, run := h.submitted()
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_TERMINATED)
	run.failure = endError(t, errors.New("x"))
	h.store.hangs.Store(true)
	began := time.Now()
	a := h.do("GET", "/status/"+id, "")
	require.Equal(t, 200, a.status, "%s", a.raw)
	require.Equal(t, "FAILED", a.body["status"])
	require.Less(t, time.Since(began), 30*time.Second)
}

// TestBytesGoneWithTheirJob: a replica that still remembers a job which another has deleted does not call its outputs lost.
func TestBytesGoneWithTheirJob(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.complete(run, randomBytes(t, maxBody))
	require.Equal(t, 200, h.do("GET", "/status/"+id, "").status)
	sum := run.result.Images[0].SHA256
	h.temporal.lingers = true
	other := &removal.Remover{Temporal: h.temporal, Store: h.store}
	require.NoError(t, other.Remove(t.Context(), removal.Job{ID: id, RunID: run.info.Execution.RunId, Tenant: "a"}))
	h.requireError(h.do("GET", "/outputs/"+id+"/"+sum, ""), 404, CodeNotFound)
	h.requireError(h.do("GET", "/status/"+id, ""), 404, CodeNotFound)
}

// TestInputsOfADeletedJob: they go unless somebody may use them.
func TestInputsOfADeletedJob(t *testing.T) {
	body := `{"workflow":` + graphJSON + `,"images":[{"name":"a.png","image":"aGVsbG8="}]}`
	listing := func(run *fakeRun) func(*workflowservice.ListWorkflowExecutionsRequest) *workflowservice.ListWorkflowExecutionsResponse {
		return func(*workflowservice.ListWorkflowExecutionsRequest) *workflowservice.ListWorkflowExecutionsResponse {
			return &workflowservice.ListWorkflowExecutionsResponse{Executions: []*workflowpb.WorkflowExecutionInfo{run.info}}
		}
	}
	for name, c := range map[string]struct {
		change func(h *harness)
		kept   bool
	}{
		"nobody":    {change: func(*harness) {}},
		"another":   {change: func(h *harness) { h.temporal.lists = listing(newRun("other", comfy.WorkflowName)) }, kept: true},
		"put again": {change: func(h *harness) { h.submit(body) }, kept: true},
		"a deleted one": {change: func(h *harness) {
			other := newRun("other", comfy.WorkflowName)
			other.end(enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
			h.temporal.lists = listing(other)
			h.temporal.lingers = true
			require.NoError(t, h.server.remover.Remove(t.Context(), removal.Job{ID: "other", RunID: "run-other"}))
			h.temporal.lingers = false
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			id := h.submit(body).body["id"].(string)
			run, err := h.temporal.get(id)
			require.NoError(t, err)
			key := run.request.Images[0].Ref
			marks, ok := run.options.TypedSearchAttributes.GetKeywordList(attrInputs)
			require.True(t, ok)
			require.Equal(t, []string{visibility.Mark(key)}, marks)
			h.complete(run, []byte("image"))
			c.change(h)
			require.Equal(t, 204, h.do("DELETE", "/jobs/"+id, "").status)
			if c.kept {
				require.Equal(t, []string{key}, h.store.keys("inputs/"))
				return
			}
			require.Empty(t, h.store.keys("inputs/"))
			last := h.temporal.queried[len(h.temporal.queried)-1]
			require.Equal(t, visibility.Uses(key, "a", run.info.Execution.RunId), last.Query)
		})
	}
}
