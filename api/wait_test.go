package api

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"

	"github.com/comfyd/comfyd/comfy"
)

func TestStatusWaits(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseRunning} })
	start := time.Now()
	require.Equal(t, 202, h.do("GET", "/status/"+id+"?wait=1", "").status)
	require.GreaterOrEqual(t, time.Since(start), time.Second)

	answers := make(chan answer)
	go func() { answers <- h.do("GET", "/status/"+id+"?wait=60", "") }()
	require.Eventually(t, func() bool { return h.server.watches.waiting(run.info.Execution.RunId) == 1 }, 30*time.Second, time.Millisecond)
	require.EqualValues(t, 1, h.temporal.gets.Load(), "one long poll for all who wait")
	require.Zero(t, h.temporal.deadlines.Load(), "close to a deadline Temporal answers at once, and the SDK asks again without a pause")
	// What others have read a moment ago is not the answer for one who has waited for the end.
	h.server.open.add(&job{id: id, tenant: "a", status: comfy.Status{ID: id, State: comfy.Running}}, time.Now(), time.Now().Add(time.Hour))
	h.temporal.mu.Lock()
	run.end(enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	h.temporal.mu.Unlock()
	require.Equal(t, 200, (<-answers).status)
	require.Less(t, time.Since(start), 50*time.Second)
	for _, wrong := range []string{"x", "-1", "1.5"} {
		h.requireError(h.do("GET", "/status/"+id+"?wait="+wrong, ""), 400, CodeInvalidRequest)
	}
	h.requireError(h.do("GET", "/status/"+id+"?output=x", ""), 400, CodeInvalidRequest)
}

// TestStatusWaitsAtOnce: who waits for what this replica has just started costs Temporal one long poll, and one look at the
// end, which is known by then.
func TestStatusWaitsAtOnce(t *testing.T) {
	h := newHarness(t)
	h.setClock(time.Now()) // it stays a moment ago
	id, run := h.submitted()
	answers := make(chan answer)
	go func() { answers <- h.do("GET", "/status/"+id+"?wait=60", "") }()
	require.Eventually(t, func() bool { return h.server.watches.waiting(run.info.Execution.RunId) == 1 }, 30*time.Second, time.Millisecond)
	h.temporal.mu.Lock()
	run.end(enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	h.temporal.mu.Unlock()
	require.Equal(t, 200, (<-answers).status)
	require.EqualValues(t, 1, h.temporal.gets.Load())
	require.EqualValues(t, 1, h.temporal.describes.Load())
	require.Zero(t, h.temporal.queries.Load())

	id, _ = h.submitted()
	h.requireError(h.do("GET", "/status/"+id+"?wait=1", "", "Authorization", "Bearer "+keyB), 404, CodeNotFound)
}

func TestStatusWaitEndsWithTheServer(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseRunning} })
	answers := make(chan answer)
	go func() { answers <- h.do("GET", "/status/"+id+"?wait=60", "") }()
	require.Eventually(t, func() bool { return h.temporal.gets.Load() == 1 }, 30*time.Second, time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, h.server.Shutdown(ctx))
	require.Equal(t, 202, (<-answers).status)
}

// TestPollersLearnOfTheEnd: who polls often has the end as it happens, whatever the age of what was read before.
func TestPollersLearnOfTheEnd(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseRunning} })
	now := time.Now()
	h.server.now = func() time.Time { return now } // what is read stays fresh
	for range 3 {
		require.Equal(t, 202, h.do("GET", "/status/"+id, "").status)
	}
	require.Eventually(t, func() bool { return h.temporal.gets.Load() == 1 }, 30*time.Second, time.Millisecond)
	h.temporal.mu.Lock()
	run.end(enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	h.temporal.mu.Unlock()
	require.Eventually(t, func() bool { return h.do("GET", "/status/"+id, "").status == 200 }, 30*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return h.server.watches.len() == 0 }, 30*time.Second, time.Millisecond)
}

// TestWatchesEnd: a job that nobody asks about any more is not watched for ever.
func TestWatchesEnd(t *testing.T) {
	h := newTunedHarness(t, func(s *Server) { s.patience.poll = watchIdle })
	h.setClock(time.Now()) // the second finds what the first has read
	id, run := h.submitted()
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseRunning} })
	for range 2 {
		require.Equal(t, 202, h.do("GET", "/status/"+id, "").status)
	}
	require.Eventually(t, func() bool { return h.temporal.gets.Load() > 0 }, 30*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return h.server.watches.len() == 0 }, 30*time.Second, 10*time.Millisecond)
}

// TestStatusTooManyWatched: who waits above the bound waits all the same.
func TestStatusTooManyWatched(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseRunning} })
	for i := range maxWatches {
		h.server.watches.byRun[fmt.Sprint(i)] = &watch{}
	}
	answers := make(chan answer)
	go func() { answers <- h.do("GET", "/status/"+id+"?wait=30", "") }()
	h.temporal.mu.Lock()
	run.end(enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	h.temporal.mu.Unlock()
	require.Equal(t, 200, (<-answers).status)
	require.LessOrEqual(t, h.temporal.gets.Load(), int64(1), "its result, and no long poll")
}

// waiting is how many wait for the end of a run.
func (w *watches) waiting(runID string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one, ok := w.byRun[runID]; ok {
		return one.waiting.Load()
	}
	return 0
}

func (w *watches) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.byRun)
}
