package app_test

import (
	"context"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/internal/app"
	"github.com/comfyd/comfyd/internal/config"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// join starts a worker of its own at the Temporal and the store of a running comfyd.
func join(t *testing.T, a *api, storeURL string, vars map[string]string) (stop func()) {
	all := map[string]string{
		"COMFYD_DATA_DIR": t.TempDir(), "COMFYD_BACKEND": "url", "COMFYD_STORE_URL": storeURL,
		"TEMPORAL_ADDRESS": a.app.TemporalAddress, "COMFYD_POOL_TIMEOUT": "5s",
	}
	for k, v := range vars {
		all[k] = v
	}
	t.Setenv("TEMPORAL_ADDRESS", a.app.TemporalAddress) // its library reads the environment itself
	c, err := config.Parse(all)
	require.NoError(t, err)
	log := logrus.New()
	log.SetLevel(logrus.WarnLevel)
	log.SetOutput(testWriter{t})
	w := app.New(c, app.Worker, "test", log)
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	require.NoError(t, w.Start(ctx))
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			w.Stop(context.WithoutCancel(ctx))
		}
	}
	t.Cleanup(stop)
	return stop
}

// TestJobsLeaveAPoolWithoutWorker: what runs and what waits at a pool goes elsewhere once the pool's last worker is gone.
func TestJobsLeaveAPoolWithoutWorker(t *testing.T) {
	store := "file://" + t.TempDir()
	here, there := fakecomfy.New(t), fakecomfy.New(t)
	here.Stop()
	held := there.Hold("EmptyImage")
	defer held.Open()
	a := start(t, map[string]string{
		"COMFYUI_URLS": here.URL, "COMFYD_SITE": "here", "COMFYD_STORE_URL": store, "COMFYD_POOL_TIMEOUT": "5s",
	})
	stop := join(t, a, store, map[string]string{"COMFYUI_URLS": there.URL, "COMFYD_SITE": "there"})
	a.ready()
	ids := make([]string, 5) // one runs, one waits at ComfyUI, three in Temporal
	for i := range ids {
		ids[i] = a.submit(map[string]any{"workflow": graph(i, "moved")})
	}
	held.Reached()
	require.Eventually(t, func() bool { return len(there.Posted()) == 2 }, 2*time.Minute, 20*time.Millisecond)
	for _, id := range ids {
		require.Eventually(t, func() bool { return a.do("GET", "/status/"+id, nil).body["backend"] == "url-there" }, 2*time.Minute, 20*time.Millisecond)
	}
	stop()
	here.Start()
	gone := time.Now()
	for _, id := range ids {
		status := a.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		require.Equal(t, "url-here", status["backend"])
		require.EqualValues(t, 2, status["attempts"])
	}
	require.Equal(t, len(ids), here.TotalRuns())
	t.Logf("all ended elsewhere %s after the pool's last worker was gone", time.Since(gone))
}

// TestResetJobGoesOn: a job that somebody resets in the Temporal UI while it runs follows the prompt that runs; the first
// run's worker neither stops it nor removes its files.
func TestResetJobGoesOn(t *testing.T) {
	a, s, gate := held(t)
	id := a.submit(map[string]any{"workflow": graph(1, "reset")})
	gate.Reached()
	ctx, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	c, err := client.DialContext(ctx, client.Options{HostPort: a.app.TemporalAddress})
	require.NoError(t, err)
	defer c.Close()
	first, err := c.DescribeWorkflowExecution(ctx, id, "")
	require.NoError(t, err)
	run := first.GetWorkflowExecutionInfo().GetExecution()
	const firstWorkflowTask = 4 // started, task scheduled, task started, task completed
	reset, err := c.ResetWorkflowExecution(ctx, &workflowservice.ResetWorkflowExecutionRequest{
		Namespace: "default", WorkflowExecution: run, WorkflowTaskFinishEventId: firstWorkflowTask, Reason: "a test", RequestId: id,
	})
	require.NoError(t, err)
	require.NotEqual(t, run.GetRunId(), reset.GetRunId(), "the fault has fired")
	require.Eventually(t, func() bool {
		d, err := c.DescribeWorkflowExecution(ctx, id, "")
		require.NoError(t, err)
		for _, p := range d.GetPendingActivities() {
			if p.GetActivityType().GetName() == "Prompt" && p.GetHeartbeatDetails() != nil {
				return true
			}
		}
		return false
	}, 2*time.Minute, 50*time.Millisecond, "the new run follows the prompt")
	// Longer than the janitor takes to notice that the first run has ended.
	require.Never(t, func() bool { return len(s.Interrupts()) > 0 }, 5*time.Second, 100*time.Millisecond)
	gate.Open()
	status := a.finish(id)
	require.Equal(t, "COMPLETED", status["status"], "%v", status)
	require.Equal(t, 1, s.TotalRuns(), "the GPU runs once")
	require.Len(t, outputs(t, status), 1)
}

// TestCancelAtAPoolWithoutWorker: a job that waits in the queue of a pool which nobody serves ends soon after it is canceled,
// although nobody is there to ask whether its prompt runs.
func TestCancelAtAPoolWithoutWorker(t *testing.T) {
	store := "file://" + t.TempDir()
	here, there := fakecomfy.New(t), fakecomfy.New(t)
	held := there.Hold("EmptyImage")
	defer held.Open()
	a := start(t, map[string]string{"COMFYUI_URLS": here.URL, "COMFYD_SITE": "here", "COMFYD_STORE_URL": store, "COMFYD_POOL_TIMEOUT": "5s"})
	stop := join(t, a, store, map[string]string{"COMFYUI_URLS": there.URL, "COMFYD_SITE": "there"})
	a.ready()
	ids := make([]string, 3) // two are ComfyUI's, the third waits in Temporal
	for i := range ids {
		ids[i] = a.submit(map[string]any{"workflow": graph(i, "left"), "backend": "url-there"})
		require.Eventually(t, func() bool { return a.do("GET", "/status/"+ids[i], nil).body["backend"] == "url-there" }, 2*time.Minute, 20*time.Millisecond)
	}
	require.Eventually(t, func() bool { return len(there.Posted()) == 2 }, 2*time.Minute, 20*time.Millisecond)
	stop()
	c := a.temporal()
	require.Eventually(t, func() bool {
		for h := c.GetWorkflowHistory(t.Context(), ids[2], "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); h.HasNext(); {
			if e, err := h.Next(); err == nil && e.GetEventType() == enums.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED {
				return true
			}
		}
		return false
	}, 2*time.Minute, 500*time.Millisecond, "it is told that nobody serves its pool")
	began := time.Now()
	require.Equal(t, 202, a.do("POST", "/cancel/"+ids[2], nil).code)
	status := a.finish(ids[2])
	require.Equal(t, "canceled", status["code"], "%v", status)
	require.Less(t, time.Since(began), 100*time.Second, "two minutes for a prompt that may run, and costs money")
}
