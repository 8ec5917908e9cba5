package activities_test

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// TestStepsOfAnotherWorkersServer: a prompt's server is not one of this worker's, so another worker of the pool is to
// take the step.
func TestStepsOfAnotherWorkersServer(t *testing.T) {
	elsewhere := func(code comfy.Code) error {
		return &backend.Error{Code: code, Message: "not one of ours", Cause: backend.ErrNotHere}
	}
	h := backend.Handle{Pool: "url", Server: "http://other", PromptID: "p", JobID: "job-1", Submission: 1}
	for activity, in := range map[string]any{
		comfy.ActivityPrompt:  promptInput(),
		comfy.ActivityCollect: collectInput("x.png"),
		comfy.ActivityStop: func() activities.PromptInput {
			in := promptInput()
			in.Earlier = &activities.Heartbeat{Handle: &h}
			return in
		}(),
	} {
		t.Run(activity, func(t *testing.T) {
			b := newBench(t)
			b.env.SetHeartbeatDetails(activities.Heartbeat{Handle: &h})
			b.double.run = func(context.Context, *backend.Prompt, *backend.Handle, backend.Recorder) (*backend.Outcome, error) {
				return nil, elsewhere(comfy.BackendLost)
			}
			b.double.open = func(backend.File) (io.ReadCloser, int64, error) { return nil, 0, elsewhere(comfy.OutputLost) }
			b.double.cancelErr = elsewhere(comfy.BackendUnavailable)
			_, final := failure(t, b.do(t, activity, in, nil))
			require.False(t, final, "it goes back to the queue of the pool")
		})
	}
}
