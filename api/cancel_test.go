package api

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
)

func TestCancel(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseRunning} })
	require.Equal(t, "running", h.do("GET", "/status/"+id, "").body["phase"])
	h.requireError(h.do("POST", "/cancel/"+id, "", "Authorization", "Bearer "+keyB), 404, CodeNotFound)
	require.False(t, run.extended.CancelRequested)

	for range 2 { // twice is as good as once
		a := h.do("POST", "/cancel/"+id, "")
		require.Equal(t, 202, a.status)
		require.Equal(t, id, a.body["id"])
		require.Equal(t, "RUNNING", a.body["status"])
		require.Equal(t, "canceling", a.body["phase"])
		require.Equal(t, "canceling", h.do("GET", "/status/"+id, "").body["phase"], "at once, whatever was remembered")
	}
	run.failure = endError(t, temporal.NewCanceledError())
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_CANCELED)
	a := h.do("POST", "/cancel/"+id, "")
	require.Equal(t, 200, a.status)
	require.Equal(t, "FAILED", a.body["status"])
	require.Equal(t, "canceled", a.body["code"])

	done, doneRun := h.submitted()
	h.complete(doneRun, []byte("x"))
	a = h.do("POST", "/cancel/"+done, "")
	require.Equal(t, 200, a.status)
	require.Equal(t, "COMPLETED", a.body["status"])
	require.NotContains(t, string(a.raw), "base64")
	h.requireError(h.do("POST", "/cancel/nope", ""), 404, CodeNotFound)
}
