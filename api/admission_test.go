package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
)

const small = `{"workflow":` + graphJSON + `}`

func bounded(all, each int) func(*Options) {
	return func(o *Options) { o.MaxOpenJobs, o.MaxOpenJobsPerTenant = all, each }
}

// TestTheBoundOnOpenJobs: each bound refuses one more job by its name, and takes one again when one has ended.
func TestTheBoundOnOpenJobs(t *testing.T) {
	h := newHarness(t, bounded(5, 3))
	asB := []string{"Authorization", "Bearer " + keyB}
	_, run := h.submitted()
	for range 2 {
		h.submitted()
	}
	a := h.submit(small)
	h.requireError(a, 429, CodeRateLimited)
	require.Equal(t, "2", a.header.Get("Retry-After"))
	require.Equal(t, "You have 3 open jobs; a tenant may have 3 at most (COMFYD_MAX_OPEN_JOBS_PER_TENANT). Nothing was accepted; try again when some have ended.", a.body["error"])

	for range 2 {
		require.Equal(t, 202, h.submit(small, asB...).status)
	}
	a = h.submit(small, asB...)
	h.requireError(a, 429, CodeRateLimited)
	require.Contains(t, a.body["error"], "The server has 5 open jobs and takes 5 at most (COMFYD_MAX_OPEN_JOBS).")
	require.Len(t, h.temporal.runs, 5)

	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	require.Eventually(t, func() bool { return h.submit(small).status == 202 }, 30*time.Second, 20*time.Millisecond, "one has ended")
}

// TestNobodyIsRefusedForAJobCountedTwice: a job that starts while the open ones are counted is in the count and among
// those started since; before anybody is refused for that, they are counted again.
func TestNobodyIsRefusedForAJobCountedTwice(t *testing.T) {
	h := newHarness(t, bounded(100, 3))
	h.submitted()
	hold := make(chan struct{})
	h.temporal.holdCounts(hold)
	before := h.temporal.counts.Load()
	answered := make(chan error)
	go func() { answered <- h.server.admission.of("a")[1].probe.again(h.server) }()
	require.Eventually(t, func() bool { return h.temporal.counts.Load() > before }, 30*time.Second, time.Millisecond)
	h.submitted()
	close(hold)
	require.NoError(t, <-answered)
	h.submitted()
	h.requireError(h.submit(small), 429, CodeRateLimited)
}

// TestAnOldKeyIsNoNewJob: where the bound is reached, a repetition still gets its first answer.
func TestAnOldKeyIsNoNewJob(t *testing.T) {
	h := newHarness(t, bounded(1, 1))
	h.setClock(time.Now()) // links are the same in each answer
	first := h.submit(small, "Idempotency-Key", "k")
	require.Equal(t, 202, first.status, "%s", first.raw)
	h.requireError(h.submit(small), 429, CodeRateLimited)
	h.requireError(h.submit(small, "Idempotency-Key", "other"), 429, CodeRateLimited)
	again := h.submit(small, "Idempotency-Key", "k")
	require.Equal(t, 202, again.status, "%s", again.raw)
	require.Equal(t, "true", again.header.Get("Idempotent-Replayed"))
	require.Equal(t, first.body, again.body)
	h.requireError(h.submit(`{"workflow":`+graphJSON+`,"priority":2}`, "Idempotency-Key", "k"), 422, CodeIdempotencyKeyReuse)
}

// TestTheBoundUnderLoad: one replica alone never goes above its bound, and asks once for all.
func TestTheBoundUnderLoad(t *testing.T) {
	h := newTunedHarness(t, func(s *Server) {
		for _, g := range s.admission.of("a") {
			g.probe.fresh, g.probe.patience = time.Hour, 0
		}
	}, bounded(20, 20))
	h.temporal.holdCount = make(chan struct{})
	var wg sync.WaitGroup
	var accepted, refused atomic.Int64
	for range 100 {
		wg.Go(func() {
			switch h.submit(small).status {
			case 202:
				accepted.Add(1)
			case 429:
				refused.Add(1)
			}
		})
	}
	require.Eventually(t, func() bool { return h.temporal.counts.Load() > 0 }, 30*time.Second, time.Millisecond)
	close(h.temporal.holdCount)
	wg.Wait()
	require.EqualValues(t, 20, accepted.Load())
	require.EqualValues(t, 80, refused.Load())
	require.Len(t, h.temporal.runs, 20)
	require.EqualValues(t, 2, h.temporal.counts.Load(), "one question for all of them, per bound")
}

// TestRefusedBeforeTheBody: who is refused has not had its files taken.
func TestRefusedBeforeTheBody(t *testing.T) {
	h := newHarness(t, bounded(1, 1))
	h.submitted()
	body := &readCounter{size: 32 << 20}
	req, err := http.NewRequest("POST", "http://"+h.addr+"/submit_workflow", body)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+keyA)
	req.Header.Set("Content-Type", "application/json")
	req.ContentLength = body.size
	resp, err := h.client.Do(req)
	require.NoError(t, err)
	h.requireError(h.read(resp), 429, CodeRateLimited)
	require.Empty(t, h.store.objects)
}

type readCounter struct{ size, read int64 }

func (r *readCounter) Read(p []byte) (int, error) {
	if r.read == r.size {
		return 0, errors.New("read to its end")
	}
	n := min(int64(len(p)), r.size-r.read)
	r.read += n
	return copy(p, strings.Repeat(" ", int(n))), nil
}

// TestNearTheBoundOthersCount: what another replica has accepted is seen before the bound is reached.
func TestNearTheBoundOthersCount(t *testing.T) {
	h := newTunedHarness(t, func(s *Server) {
		s.admission.all.probe.fresh, s.admission.all.probe.patience = time.Nanosecond, 0
	}, bounded(10, 100))
	for range 9 {
		h.submitted()
	}
	h.temporal.set("elsewhere", newRun("elsewhere", "ComfyUIWorkflow"))
	h.requireError(h.submit(small), 429, CodeRateLimited)
}

// TestFarFromTheBoundNobodyWaits: a count that hangs holds up no submission for which there was one a moment ago.
func TestFarFromTheBoundNobodyWaits(t *testing.T) {
	h := newTunedHarness(t, func(s *Server) {
		s.admission.all.probe.fresh, s.admission.all.probe.limit = time.Nanosecond, time.Minute
	})
	h.submitted()
	hold := make(chan struct{})
	h.temporal.holdCounts(hold)
	before := h.temporal.counts.Load()
	h.submitted()
	require.Eventually(t, func() bool { return h.temporal.counts.Load() > before }, 30*time.Second, time.Millisecond, "it is renewed meanwhile")
	h.submitted()
	close(hold)
}

// TestWithoutVisibilityJobsAreAccepted: nobody knows whether the bound is reached, so Temporal's own start decides.
func TestWithoutVisibilityJobsAreAccepted(t *testing.T) {
	h := newHarness(t, bounded(1, 1))
	h.temporal.countErr = serviceerror.NewUnavailable("visibility")
	h.submitted()
	h.submitted()
	require.Len(t, h.temporal.runs, 2)
	require.Equal(t, 1, strings.Count(h.log.String(), "level=warning"), "once a minute for all bounds: %s", h.log)
	require.Contains(t, h.log.String(), "Temporal could not count the open jobs")
}

// TestASlowCountStillBounds: a count that takes longer than a submission waits is good for those that follow.
func TestASlowCountStillBounds(t *testing.T) {
	h := newTunedHarness(t, func(s *Server) {
		s.admission.all.probe.patience, s.admission.all.probe.fresh = 20*time.Millisecond, time.Nanosecond
	}, bounded(1, 10))
	hold := make(chan struct{})
	h.temporal.set("elsewhere", newRun("elsewhere", "ComfyUIWorkflow"))
	h.temporal.holdCounts(hold)
	p := h.server.admission.all.probe
	require.ErrorIs(t, p.now(h.server), errNoAnswerYet)
	h.temporal.holdCounts(nil)
	close(hold)
	require.Eventually(t, func() bool { return p.now(h.server) == nil }, 30*time.Second, time.Millisecond)
	hold = make(chan struct{})
	defer close(hold)
	require.Equal(t, 429, h.submit(small).status) // and the tenant's own bound has been counted
	h.temporal.holdCounts(hold)
	h.requireError(h.submit(small), 429, CodeRateLimited)
}

func TestADiskThatIsNearlyFull(t *testing.T) {
	var low atomic.Bool
	h := newTunedHarness(t, func(s *Server) { s.admission.space.fresh = 0 }, func(o *Options) {
		o.Space = func(context.Context) error {
			if low.Load() {
				return errors.New("the disk of the jobs (COMFYD_DATA_DIR) has 3MiB free, and 1GiB are kept free (COMFYD_MIN_FREE_DISK)")
			}
			return nil
		}
	})
	first := h.submit(small, "Idempotency-Key", "k")
	require.Equal(t, 202, first.status)
	low.Store(true)
	a := h.submit(small)
	h.requireError(a, 503, CodeStorage)
	require.Equal(t, "2", a.header.Get("Retry-After"))
	require.Contains(t, a.body["error"], "has 3MiB free")
	h.requireError(h.do("POST", "/inputs?name=a.png", "bytes", "Content-Type", "image/png"), 503, CodeStorage)
	ready := h.do("GET", "/readyz", "")
	require.Equal(t, 503, ready.status)
	require.Equal(t, map[string]any{"ok": false, "error": "The disk is nearly full; no job is accepted."}, ready.body["disk"])
	require.Equal(t, 202, h.submit(small, "Idempotency-Key", "k").status, "a repetition needs no room")
	require.Len(t, h.temporal.runs, 1)
	require.Empty(t, h.store.objects)

	low.Store(false)
	require.Eventually(t, func() bool { return h.submit(small).status == 202 }, 30*time.Second, 20*time.Millisecond)
}

// TestOneThingIsAway: whatever is away, and in whatever order it fails, nothing is half accepted.
func TestOneThingIsAway(t *testing.T) {
	large := `{"workflow":{"1":{"class_type":"SaveText","inputs":{"text":"` + strings.Repeat("x", claimCheck) + `"}}}}`
	image := `{"workflow":` + graphJSON + `,"images":[{"name":"a.png","image":"aGVsbG8="}]}`
	for name, body := range map[string]string{"small": small, "large": large, "with a file": image} {
		t.Run("store, "+name, func(t *testing.T) {
			h := newTunedHarness(t, func(s *Server) { s.admission.store.fresh = 0 })
			h.submitted() // the store was well a moment ago
			h.store.fail(fmt.Errorf("store: %w", os.ErrDeadlineExceeded))
			require.Eventually(t, func() bool {
				a := h.submit(body)
				if a.status == 202 {
					return false // it was accepted before anybody knew
				}
				h.requireError(a, 503, CodeStorage)
				return true
			}, 30*time.Second, 20*time.Millisecond)
			n := len(h.temporal.runs)
			h.requireError(h.submit(body), 503, CodeStorage)
			require.Len(t, h.temporal.runs, n)
		})
		t.Run("Temporal, "+name, func(t *testing.T) {
			h := newHarness(t)
			h.temporal.fail(serviceerror.NewUnavailable("connection refused"))
			a := h.submit(body)
			h.requireError(a, 503, CodeUnavailable)
			require.Equal(t, "2", a.header.Get("Retry-After"))
			require.Empty(t, h.temporal.runs)
			h.requireError(h.submit(body, "Idempotency-Key", "k"), 503, CodeUnavailable)
		})
	}
}
