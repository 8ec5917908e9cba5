package activities_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// TestPromptIsHeardLive: whoever listens to a job hears of its prompt at once, and that it is over; the heartbeat says
// where others can.
func TestPromptIsHeardLive(t *testing.T) {
	b := newBench(t)
	beats := make(chan activities.Heartbeat, 10)
	b.env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		var hb activities.Heartbeat
		if details.Get(&hb) == nil {
			beats <- hb
		}
	})
	heard := b.live.Subscribe(job.ID)
	defer heard.Close()
	picture := backend.Preview{NodeID: "1", ContentType: "image/jpeg", Data: []byte("x")}
	b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
		require.NoError(t, rec.Handle(ctx, handle(p)))
		rec.Progress(backend.Update{Running: true, Progress: comfy.Progress{Value: 0.1}})
		require.Equal(t, 0.4, heard.Take().Update.Progress.Value, "what was done before stays done")
		rec.Progress(backend.Update{Running: true, Progress: comfy.Progress{Value: 0.5}})
		rec.Preview(picture)
		n := heard.Take()
		require.Equal(t, comfy.Progress{Value: 0.5, NodesDone: 2}, n.Update.Progress)
		require.Equal(t, picture, *n.Preview)
		require.False(t, n.Over)
		require.True(t, b.live.Publishes(job.ID))
		return &backend.Outcome{Handle: handle(p)}, nil
	}
	in := promptInput()
	in.Earlier = &activities.Heartbeat{
		Live: "http://a-worker-that-has-died/live/x", Update: &backend.Update{Running: true, Progress: comfy.Progress{Value: 0.4, NodesDone: 2}},
	}
	require.NoError(t, b.do(t, comfy.ActivityPrompt, in, nil))
	require.True(t, heard.Take().Over)
	require.False(t, b.live.Publishes(job.ID))
	select {
	case hb := <-beats:
		require.Regexp(t, `^http://worker:1/live/\w{20,}$`, hb.Live)
	case <-time.After(time.Minute):
		t.Fatal("no heartbeat")
	}
}
