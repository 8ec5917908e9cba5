package api

import (
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/live"
)

func TestStatusUnknown(t *testing.T) {
	h := newHarness(t)
	id, _ := h.submitted()
	other := newRun("other-type", "SomethingElse")
	h.temporal.set("other-type", other)
	for name, c := range map[string][2]string{
		"unknown":         {"nope", keyA},
		"another tenant":  {id, keyB},
		"another type":    {"other-type", keyA},
		"control bytes":   {"%00x", keyA},
		"not UTF-8":       {"%ff", keyA},
		"a broken escape": {"%zz", keyA},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			for _, path := range []string{"/status/", "/jobs/"} {
				a := rawGet(t, h, path+c[0], c[1])
				h.requireError(a, 404, CodeNotFound)
				require.JSONEq(t, `{"error":"Call ID not found or invalid.","code":"not_found"}`, string(a.raw))
			}
		})
	}
}

// rawGet sends a path as it is, which url.Parse would refuse.
func rawGet(t *testing.T, h *harness, path, key string) answer {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+h.addr, nil)
	require.NoError(t, err)
	req.URL.Opaque = path
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := h.client.Do(req)
	require.NoError(t, err)
	return h.read(resp)
}

func TestStatusRunningSaysWhatThePRDSays(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	position := 3
	h.change(run, func() {
		run.own = &comfy.Status{State: comfy.Running, Phase: comfy.PhaseQueued, Attempts: 1, Backend: "url", QueuePosition: &position}
	})
	a := h.do("GET", "/status/"+id, "")
	require.Equal(t, 202, a.status)
	require.Equal(t, id, a.body["id"])
	require.Equal(t, "RUNNING", a.body["status"])
	require.Equal(t, "queued", a.body["phase"])
	require.EqualValues(t, 1, a.body["attempts"])
	require.EqualValues(t, 3, a.body["queue_position"])
	require.Equal(t, "url", a.body["backend"])
	require.NotEmpty(t, a.body["created_at"])
}

func prompt(t *testing.T, state enums.PendingActivityState, beat *heartbeat) *workflowpb.PendingActivityInfo {
	info := &workflowpb.PendingActivityInfo{ActivityType: &commonpb.ActivityType{Name: comfy.ActivityPrompt}, State: state}
	if beat != nil {
		payloads, err := converter.GetDefaultDataConverter().ToPayloads(beat)
		require.NoError(t, err)
		info.HeartbeatDetails = payloads
	}
	return info
}

func TestStatusMerge(t *testing.T) {
	position := 2
	handle := &backend.Handle{Pool: "url", Submission: 2}
	running := &backend.Update{Running: true, Progress: comfy.Progress{Value: 0.5, NodesDone: 1, NodesTotal: 2, CurrentNode: "1"}}
	scheduled, started := enums.PENDING_ACTIVITY_STATE_SCHEDULED, enums.PENDING_ACTIVITY_STATE_STARTED
	for name, c := range map[string]struct {
		own     *comfy.Status
		pending *workflowpb.PendingActivityInfo
		cancel  bool
		phase   string
		check   func(t *testing.T, body map[string]any)
	}{
		"nothing known":         {phase: "queued"},
		"only the query":        {own: &comfy.Status{Phase: comfy.PhaseCollecting}, phase: "collecting"},
		"warm-up, no worker":    {pending: &workflowpb.PendingActivityInfo{ActivityType: &commonpb.ActivityType{Name: comfy.ActivityWarmUp}}, phase: "warming"},
		"collect, no worker":    {pending: &workflowpb.PendingActivityInfo{ActivityType: &commonpb.ActivityType{Name: comfy.ActivityCollect}}, phase: "collecting"},
		"waits for a GPU":       {own: &comfy.Status{Phase: comfy.PhaseRunning}, pending: prompt(t, scheduled, nil), phase: "queued"},
		"picked up":             {own: &comfy.Status{Phase: comfy.PhaseRunning}, pending: prompt(t, started, nil), phase: "queued"},
		"between two attempts":  {pending: prompt(t, scheduled, &heartbeat{Handle: handle, Update: running}), phase: "running"},
		"cancel asked for":      {own: &comfy.Status{Phase: comfy.PhaseRunning}, cancel: true, phase: "canceling"},
		"cancel under way":      {pending: prompt(t, enums.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED, &heartbeat{Handle: handle, Update: running}), phase: "canceling"},
		"in the backend's line": {pending: prompt(t, started, &heartbeat{Handle: handle, Update: &backend.Update{QueuePosition: &position}}), phase: "queued", check: func(t *testing.T, body map[string]any) { require.EqualValues(t, 2, body["queue_position"]) }},
		"runs": {own: &comfy.Status{Attempts: 1, Backend: "x"}, pending: prompt(t, started, &heartbeat{Handle: handle, Update: running}), phase: "running", check: func(t *testing.T, body map[string]any) {
			require.Equal(t, map[string]any{"value": 0.5, "nodes_done": 1.0, "nodes_total": 2.0, "current_node": "1"}, body["progress"])
			require.EqualValues(t, 2, body["attempts"])
			require.Equal(t, "url", body["backend"])
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTunedHarness(t, func(s *Server) { s.patience.own = queryPatience })
			id, run := h.submitted()
			h.change(run, func() {
				run.own, run.extended.CancelRequested = c.own, c.cancel
				h.temporal.mute = c.own == nil
				if c.pending != nil {
					run.pending = []*workflowpb.PendingActivityInfo{c.pending}
				}
			})
			start := time.Now()
			a := h.do("GET", "/status/"+id, "")
			require.Equal(t, 202, a.status)
			require.Equal(t, c.phase, a.body["phase"])
			if c.own == nil {
				require.Less(t, time.Since(start), 30*time.Second, "without a worker Describe alone answers")
			}
			if c.check != nil {
				c.check(t, a.body)
			}
		})
	}
}

func TestStatusManyPollersCostOneRead(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseRunning} })
	h.setClock(time.Now())
	h.temporal.hold = make(chan struct{})
	var wg sync.WaitGroup
	var asked atomic.Int64
	for range 20 {
		wg.Go(func() {
			asked.Add(1)
			for range 10 {
				require.Equal(t, 202, h.do("GET", "/status/"+id, "").status)
			}
		})
	}
	require.Eventually(t, func() bool { return asked.Load() == 20 && h.temporal.describes.Load() > 0 }, 30*time.Second, time.Millisecond)
	// One that has not arrived by now finds the answer remembered.
	close(h.temporal.hold)
	wg.Wait()
	require.EqualValues(t, 1, h.temporal.describes.Load())
}

func TestStatusIsAtMostAQuarterOfASecondOld(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	now := time.Now()
	h.setClock(now)
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseWarming} })
	require.Equal(t, "warming", h.do("GET", "/status/"+id, "").body["phase"])
	h.temporal.mu.Lock()
	run.own = &comfy.Status{Phase: comfy.PhaseRunning}
	run.info.HistoryLength++
	h.temporal.mu.Unlock()
	require.Equal(t, "warming", h.do("GET", "/status/"+id, "").body["phase"])
	h.setClock(now.Add(openFor))
	require.Equal(t, "running", h.do("GET", "/status/"+id, "").body["phase"])
}

// TestAWorkflowIsAskedOnce: what it says of itself follows from its history, and is asked for again only when that has grown.
func TestAWorkflowIsAskedOnce(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	now := time.Now()
	read := func() (phase any) {
		now = now.Add(openFor)
		h.setClock(now)
		return h.do("GET", "/status/"+id, "").body["phase"]
	}
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseWarming} })
	for range 5 {
		require.Equal(t, "warming", read())
	}
	require.EqualValues(t, 1, h.temporal.queries.Load())
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseCollecting} })
	for range 5 {
		require.Equal(t, "collecting", read())
	}
	require.EqualValues(t, 2, h.temporal.queries.Load())
	require.GreaterOrEqual(t, h.temporal.describes.Load(), int64(10), "the server is asked each time")
	h.change(run, func() { run.info.Execution.RunId = "another-run" })
	h.change(run, func() { run.info.HistoryLength, run.own = 2, &comfy.Status{Phase: comfy.PhaseQueued} })
	require.Equal(t, "queued", read(), "another run of the ID has another history")
}

// TestAJobThatWaits: nothing happens to a job whose prompt no worker has taken. Where the workers are in this process, and
// would tell, its status may be older; not otherwise.
func TestAJobThatWaits(t *testing.T) {
	for _, here := range []bool{true, false} {
		t.Run(fmt.Sprint(here), func(t *testing.T) {
			hub := live.NewHub("")
			h := newHarness(t, func(o *Options) { o.Live, o.LiveHere = hub, here })
			id, run := h.submitted()
			now := time.Now()
			phase := func(after time.Duration) any {
				now = now.Add(after)
				h.setClock(now)
				return h.do("GET", "/status/"+id, "").body["phase"]
			}
			prompt := func(state enums.PendingActivityState) *workflowpb.PendingActivityInfo {
				return &workflowpb.PendingActivityInfo{ActivityType: &commonpb.ActivityType{Name: comfy.ActivityPrompt}, State: state}
			}
			h.change(run, func() {
				run.own = &comfy.Status{Phase: comfy.PhaseQueued}
				run.pending = []*workflowpb.PendingActivityInfo{prompt(enums.PENDING_ACTIVITY_STATE_SCHEDULED)}
			})
			before := h.temporal.describes.Load()
			require.Equal(t, "queued", phase(openFor))
			for range 3 {
				require.Equal(t, "queued", phase(openFor))
			}
			if !here {
				require.EqualValues(t, 4, h.temporal.describes.Load()-before)
				return
			}
			require.EqualValues(t, 1, h.temporal.describes.Load()-before)
			h.temporal.mu.Lock()
			run.pending = []*workflowpb.PendingActivityInfo{prompt(enums.PENDING_ACTIVITY_STATE_STARTED)}
			h.temporal.mu.Unlock()
			source := hub.Begin(id)
			defer source.End()
			phase(time.Millisecond)
			require.EqualValues(t, 2, h.temporal.describes.Load()-before, "a worker has taken it")
			phase(openFor)
			require.EqualValues(t, 3, h.temporal.describes.Load()-before, "it waits no more")
			phase(time.Millisecond)
			require.EqualValues(t, 3, h.temporal.describes.Load()-before, "and is told from memory as any other")
			h.change(run, func() { run.pending[0].State = enums.PENDING_ACTIVITY_STATE_SCHEDULED }) // for another worker
			phase(openFor)
			phase(openFor)
			require.EqualValues(t, 4, h.temporal.describes.Load()-before)
			source.End()
			phase(time.Millisecond)
			require.EqualValues(t, 5, h.temporal.describes.Load()-before, "the worker has let go of it")
		})
	}
}

func TestStatusFailed(t *testing.T) {
	failure := comfy.Failure{
		Code: comfy.NodeFailed, Message: "node 2 failed: boom", NodeID: "2", Attempts: 2, Backend: "url", Metrics: comfy.Metrics{TotalMS: 7},
		NodeErrors: comfy.NodeErrors{"2": {ClassType: "SaveImage", Errors: []comfy.InputError{}, DependentOutputs: []string{}}},
	}
	for name, c := range map[string]struct {
		status  enums.WorkflowExecutionStatus
		err     error
		code    string
		message string
		node    any
	}{
		"failed":        {enums.WORKFLOW_EXECUTION_STATUS_FAILED, temporal.NewNonRetryableApplicationError("short", "node_failed", nil, failure), "node_failed", "node 2 failed: boom", "2"},
		"no details":    {enums.WORKFLOW_EXECUTION_STATUS_FAILED, temporal.NewNonRetryableApplicationError("gone", "backend_lost", nil), "backend_lost", "gone", nil},
		"a fault":       {enums.WORKFLOW_EXECUTION_STATUS_FAILED, temporal.NewApplicationError("/root/secret.go:3", "wrapError"), "internal", "The job failed by a fault of comfyd. The Temporal UI and the worker's log have the details under its ID.", nil},
		"canceled":      {enums.WORKFLOW_EXECUTION_STATUS_CANCELED, temporal.NewCanceledError(), "canceled", "The job was canceled.", nil},
		"canceled with": {enums.WORKFLOW_EXECUTION_STATUS_CANCELED, temporal.NewCanceledError(comfy.Failure{Message: "canceled while it ran", Attempts: 1}), "canceled", "canceled while it ran", nil},
		"terminated":    {enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, temporal.NewCanceledError(), "internal", "The job was terminated by an operator in Temporal.", nil},
		"timed out":     {enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT, temporal.NewCanceledError(), "timeout", "The job did not end within its time limits.", nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			id, run := h.submitted()
			run.failure = endError(t, c.err)
			run.info.StartTime.Seconds -= 5
			h.finish(run, c.status)
			a := h.do("GET", "/status/"+id, "")
			require.Equal(t, 200, a.status)
			require.Equal(t, "FAILED", a.body["status"])
			require.Equal(t, c.code, a.body["code"])
			require.Equal(t, c.message, a.body["error"])
			require.Equal(t, c.node, a.body["node_id"])
			require.NotEmpty(t, a.body["expires_at"])
			require.Positive(t, a.body["metrics"].(map[string]any)["total_ms"])
			require.NotContains(t, string(a.raw), "secret")
		})
	}
}

func TestStatusOfAClosedJobIsReadOnce(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.complete(run, []byte("picture"))
	h.setClock(time.Now())
	first := h.do("GET", "/status/"+id, "")
	require.Equal(t, 200, first.status)
	describes, gets, opened := h.temporal.describes.Load(), h.temporal.gets.Load(), h.store.opened.Load()
	for range 5 {
		require.Equal(t, first.raw, h.do("GET", "/jobs/"+id, "").raw)
	}
	require.Equal(t, []int64{describes, gets, opened}, []int64{h.temporal.describes.Load(), h.temporal.gets.Load(), h.store.opened.Load()})
	h.requireError(h.do("GET", "/status/"+id, "", "Authorization", "Bearer "+keyB), 404, CodeNotFound)

	// After retention Temporal decides again.
	h.setClock(time.Now().Add(8 * 24 * time.Hour))
	h.temporal.set(id, nil)
	h.requireError(h.do("GET", "/status/"+id, ""), 404, CodeNotFound)
}

func TestStatusOfAChildJob(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.DefaultTenant = "b" })
	id := "parent/run 1?x_7"
	run := newRun(id, comfy.WorkflowName)
	run.own = &comfy.Status{Phase: comfy.PhaseRunning}
	h.temporal.set(id, run)
	require.Equal(t, 404, h.do("GET", "/status/"+url.PathEscape(id), "").status)
	a := h.do("GET", "/status/"+url.PathEscape(id), "", "Authorization", "Bearer "+keyB)
	require.Equal(t, 202, a.status)
	require.Equal(t, id, a.body["id"])
}

func TestStatusWithoutTemporal(t *testing.T) {
	h := newHarness(t)
	h.temporal.fail(serviceerror.NewUnavailable("refused"))
	a := h.do("GET", "/status/x", "")
	h.requireError(a, 503, CodeUnavailable)
	require.Equal(t, "2", a.header.Get("Retry-After"))
}
