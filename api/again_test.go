package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
)

// TestAnIDThatIsUsedAgain: a parent may start a child under the ID of one that has ended. What is remembered of that one's
// end is then no answer any more: not to a poll, a few seconds later, and never to a cancel or a deletion.
func TestAnIDThatIsUsedAgain(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.DefaultTenant = "a" })
	const id = "order-42.cover"
	first := newRun(id, comfy.WorkflowName)
	h.temporal.set(id, first)
	h.complete(first, []byte("x"))
	require.Equal(t, 200, h.do("GET", "/status/"+id, "").status)

	next := func(run string) *fakeRun {
		r := newRun(id, comfy.WorkflowName)
		r.info.Execution.RunId, r.own = run, &comfy.Status{Phase: comfy.PhaseRunning}
		h.temporal.set(id, r)
		return r
	}
	second := next("second")
	a := h.do("POST", "/cancel/"+id, "")
	require.Equal(t, 202, a.status, "%s", a.raw)
	require.True(t, second.extended.CancelRequested)

	second.failure = endError(t, temporal.NewCanceledError())
	h.finish(second, enums.WORKFLOW_EXECUTION_STATUS_CANCELED)
	require.Equal(t, "FAILED", h.do("GET", "/status/"+id, "").body["status"])
	next("third")
	h.setClock(time.Now().Add(recheckAfter + time.Second))
	require.Equal(t, "RUNNING", h.do("GET", "/status/"+id, "").body["status"])
}

// TestCancelMeetsTheNextRun: a run that has ended, and was begun anew, between the look at it and the request to cancel it.
func TestCancelMeetsTheNextRun(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	j, err := h.server.job(id, "a")
	require.NoError(t, err)
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_FAILED)
	again := newRun(id, comfy.WorkflowName)
	again.info.Execution.RunId, again.info.Memo = "again", run.info.Memo
	h.temporal.set(id, again)
	got, err := h.server.requestCancel(j)
	require.NoError(t, err)
	require.Equal(t, "again", got.runID)
	require.True(t, again.extended.CancelRequested)
}
