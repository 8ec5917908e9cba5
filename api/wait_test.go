package api

import (
	"context"
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
	go func() { answers <- h.do("GET", "/status/"+id+"?wait=15", "") }()
	require.Eventually(t, func() bool { return h.temporal.gets.Load() == 2 }, 5*time.Second, time.Millisecond)
	// What others have read a moment ago is not the answer for one who has waited for the end.
	h.server.open.add(&job{id: id, tenant: "a", status: comfy.Status{ID: id, State: comfy.Running}}, time.Now().Add(time.Hour))
	h.temporal.mu.Lock()
	run.end(enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	h.temporal.mu.Unlock()
	require.Equal(t, 200, (<-answers).status)
	require.Less(t, time.Since(start), 10*time.Second)
	for _, wrong := range []string{"x", "-1", "1.5"} {
		h.requireError(h.do("GET", "/status/"+id+"?wait="+wrong, ""), 400, CodeInvalidRequest)
	}
	h.requireError(h.do("GET", "/status/"+id+"?output=x", ""), 400, CodeInvalidRequest)
}

func TestStatusWaitEndsWithTheServer(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseRunning} })
	answers := make(chan answer)
	go func() { answers <- h.do("GET", "/status/"+id+"?wait=60", "") }()
	require.Eventually(t, func() bool { return h.temporal.gets.Load() == 1 }, 5*time.Second, time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	require.NoError(t, h.server.Shutdown(ctx))
	require.Equal(t, 202, (<-answers).status)
}

func TestStatusTooManyWaiters(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseRunning} })
	h.server.waiters.Store(maxWaiters)
	start := time.Now()
	require.Equal(t, 202, h.do("GET", "/status/"+id+"?wait=30", "").status)
	require.Less(t, time.Since(start), 5*time.Second)
	require.EqualValues(t, maxWaiters, h.server.waiters.Load())
}
