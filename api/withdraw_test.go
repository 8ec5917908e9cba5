package api

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
)

var noAnswer = serviceerror.NewDeadlineExceeded("context deadline exceeded")

func quickly(s *Server) { s.withdrawals.every = 5 * time.Millisecond }

// only is the one run that Temporal has.
func (h *harness) only() *fakeRun {
	h.t.Helper()
	h.temporal.mu.Lock()
	defer h.temporal.mu.Unlock()
	require.Len(h.t, h.temporal.runs, 1)
	for _, r := range h.temporal.runs {
		return r
	}
	return nil
}

// lost makes a start happen whose answer does not arrive, nor any other until Temporal is back.
func (h *harness) lost(headers ...string) answer {
	h.t.Helper()
	h.temporal.mu.Lock()
	h.temporal.startErr, h.temporal.lands = noAnswer, true
	h.temporal.describeErr = serviceerror.NewUnavailable("gone")
	h.temporal.mu.Unlock()
	a := h.submit(small, headers...)
	h.temporal.mu.Lock()
	h.temporal.startErr, h.temporal.lands = nil, false
	h.temporal.mu.Unlock()
	return a
}

func (h *harness) back() {
	h.temporal.mu.Lock()
	defer h.temporal.mu.Unlock()
	h.temporal.describeErr = nil
}

func (h *harness) canceled(r *fakeRun) bool {
	h.temporal.mu.Lock()
	defer h.temporal.mu.Unlock()
	return r.extended.CancelRequested
}

// TestAStartWithoutAnAnswer: it happened, and asking once more tells so.
func TestAStartWithoutAnAnswer(t *testing.T) {
	for name, headers := range map[string][]string{"without a key": nil, "with a key": {"Idempotency-Key", "k"}} {
		t.Run(name, func(t *testing.T) {
			h := newTunedHarness(t, quickly)
			h.temporal.startErr, h.temporal.lands = noAnswer, true
			a := h.submit(small, headers...)
			require.Equal(t, 202, a.status, "%s", a.raw)
			require.Empty(t, a.header.Get("Idempotent-Replayed"))
			require.Equal(t, a.body["id"], h.only().info.Execution.WorkflowId)
			require.False(t, h.canceled(h.only()))
		})
	}
}

// TestAJobThatNobodyKnowsIsCanceled: the client was told that nothing was accepted, and so it becomes.
func TestAJobThatNobodyKnowsIsCanceled(t *testing.T) {
	h := newTunedHarness(t, quickly)
	a := h.lost()
	h.requireError(a, 503, CodeUnavailable)
	require.Contains(t, a.body["error"], "Nothing was accepted")
	require.False(t, h.canceled(h.only()))
	h.back()
	require.Eventually(t, func() bool { return h.canceled(h.only()) }, 30*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return !h.server.withdrawals.some() }, 30*time.Second, time.Millisecond, "it is looked for no longer")
}

// TestAPausedJobThatNobodyKnowsIsCanceled: an operator has paused it before it was found.
func TestAPausedJobThatNobodyKnowsIsCanceled(t *testing.T) {
	h := newTunedHarness(t, quickly)
	h.requireError(h.lost(), 503, CodeUnavailable)
	run := h.only()
	h.change(run, func() { run.info.Status = enums.WORKFLOW_EXECUTION_STATUS_PAUSED })
	h.back()
	require.Eventually(t, func() bool { return !h.server.withdrawals.some() }, 30*time.Second, time.Millisecond)
	require.True(t, h.canceled(run))
}

// TestAJobThatStartsLate: Temporal says first that there is none, and there is one a moment later.
func TestAJobThatStartsLate(t *testing.T) {
	h := newTunedHarness(t, quickly)
	h.temporal.startErr = noAnswer
	h.requireError(h.submit(small), 503, CodeUnavailable)
	h.temporal.mu.Lock()
	h.temporal.startErr = nil
	seen := h.temporal.describes.Load()
	h.temporal.mu.Unlock()
	require.Eventually(t, func() bool { return h.temporal.describes.Load() > seen+2 }, 30*time.Second, time.Millisecond)
	missing := h.server.withdrawals.snapshot()
	require.Len(t, missing, 1)
	for id := range missing {
		h.temporal.set(id, newRun(id, "ComfyUIWorkflow"))
	}
	require.Eventually(t, func() bool { return h.canceled(h.only()) }, 30*time.Second, time.Millisecond)
}

// TestAJobThatEndedBeforeItWasFound is left as it is.
func TestAJobThatEndedBeforeItWasFound(t *testing.T) {
	h := newTunedHarness(t, quickly)
	h.requireError(h.lost(), 503, CodeUnavailable)
	h.finish(h.only(), enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	h.back()
	require.Eventually(t, func() bool { return !h.server.withdrawals.some() }, 30*time.Second, time.Millisecond)
	require.False(t, h.canceled(h.only()))
}

// TestAKeyFindsItsJobAgain: the client can ask itself, so its job is not taken from it.
func TestAKeyFindsItsJobAgain(t *testing.T) {
	h := newTunedHarness(t, quickly)
	a := h.lost("Idempotency-Key", "k")
	h.requireError(a, 503, CodeUnavailable)
	require.Contains(t, a.body["error"], "Send the request again with the same Idempotency-Key")
	h.back()
	again := h.submit(small, "Idempotency-Key", "k")
	require.Equal(t, 202, again.status, "%s", again.raw)
	require.Equal(t, "true", again.header.Get("Idempotent-Replayed"))
	require.Equal(t, again.body["id"], h.only().info.Execution.WorkflowId)
	require.False(t, h.canceled(h.only()))
	require.False(t, h.server.withdrawals.some())
}

// TestWhatIsCertain: a refusal of Temporal is one; silence is none.
func TestWhatIsCertain(t *testing.T) {
	for _, err := range []error{
		serviceerror.NewInvalidArgument("x"), serviceerror.NewNotFound("x"), serviceerror.NewPermissionDenied("x", "y"),
		serviceerror.NewResourceExhausted(enums.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT, "x"),
	} {
		require.False(t, uncertain(err), "%T", err)
	}
	for _, err := range []error{
		serviceerror.NewUnavailable("x"), noAnswer, serviceerror.NewInternal("x"), context.DeadlineExceeded, context.Canceled, errors.New("x"),
	} {
		require.True(t, uncertain(err), "%T", err)
	}
}
