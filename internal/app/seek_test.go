package app_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestAttemptThatSearchesLives: an attempt that knows of no handle asks every server of its pool for the prompt. One of them
// is down, and takes longer to be given up than a heartbeat may: the attempt says that it lives meanwhile, and then runs the
// prompt on the other.
func TestAttemptThatSearchesLives(t *testing.T) {
	here, down := fakecomfy.New(t), fakecomfy.New(t)
	a := start(t, map[string]string{"COMFYUI_URLS": here.URL + "," + down.URL})
	a.ready()
	c := a.temporal()
	w := worker.New(c, "seekers", worker.Options{})
	seek := func(ctx workflow.Context, in activities.PromptInput) (*activities.Prompted, error) {
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			TaskQueue: comfy.PromptTaskQueue(in.Placement.Pool.Name), ScheduleToCloseTimeout: time.Minute, HeartbeatTimeout: 7 * time.Second,
			RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1},
		})
		var out *activities.Prompted
		err := workflow.ExecuteActivity(ctx, comfy.ActivityPrompt, in).Get(ctx, &out)
		return out, err
	}
	w.RegisterWorkflowWithOptions(seek, workflow.RegisterOptions{Name: "seek"})
	require.NoError(t, w.Start())
	defer w.Stop()

	down.Kill()
	ctx, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	began := time.Now()
	in := activities.PromptInput{
		Job:        activities.Job{ID: "seek", RunID: "that of an earlier attempt", Request: comfy.Request{Workflow: graph(1, "sought")}},
		Submission: 1, StartBy: time.Now().Add(time.Hour), Deadline: time.Now().Add(2 * time.Hour),
		Placement: activities.Placement{Pool: backend.Pool{Name: "url", Kind: "url"}, RunTimeout: time.Hour, StartTimeout: time.Hour, StallTimeout: time.Minute},
	}
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "seek", TaskQueue: "seekers"}, "seek", in)
	require.NoError(t, err)
	var out *activities.Prompted
	require.NoError(t, run.Get(ctx, &out))
	require.Greater(t, time.Since(began), 7*time.Second, "the search took longer than a heartbeat may")
	require.Equal(t, 1, here.TotalRuns())
	require.Len(t, here.Posted(), 1)
}
