package activities_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// TestStoppedWhileItSearches: an attempt that still looks for the prompt of an earlier one stops it by its ID, for nobody else
// does. The very first attempt has posted nothing, and has nothing to stop.
func TestStoppedWhileItSearches(t *testing.T) {
	for name, c := range map[string]struct {
		run      string // the run that the job began with
		canceled int
	}{"the first": {job.RunID, 0}, "after a reset": {"the run before", 1}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			in := promptInput()
			in.Job.RunID, in.Deadline, in.StartBy = c.run, time.Now(), time.Now().Add(-time.Second)
			b.double.run = func(ctx context.Context, _ *backend.Prompt, _ *backend.Handle, _ backend.Recorder) (*backend.Outcome, error) {
				<-ctx.Done()
				return nil, backend.Detached(ctx)
			}
			f, final := failure(t, b.do(t, "Prompt", in, nil))
			require.True(t, final)
			require.Equal(t, comfy.BackendUnavailable, f.Code)
			require.Len(t, b.double.canceled, c.canceled)
			for _, h := range b.double.canceled {
				require.Equal(t, activities.PromptID(in.Job, 1), h.PromptID)
				require.Empty(t, h.Server)
			}
		})
	}
}

// TestHeartbeatsWithoutAHandle: an attempt that takes its time before it has a handle says that it lives. The handle's
// heartbeat is held back then, by the SDK, and nothing is posted before it has gone out.
func TestHeartbeatsWithoutAHandle(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	var said []bool // whether there was a handle
	b.env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		var hb activities.Heartbeat
		if details.Get(&hb) == nil {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, hb.Handle != nil)
		}
	})
	var took time.Duration
	b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(said) > 0
		}, time.Minute, time.Millisecond, "it says nothing")
		began := time.Now()
		require.NoError(t, rec.Handle(ctx, handle(p)))
		took = time.Since(began)
		again := time.Hour
		for range 3 { // a machine that stops for a moment makes one of them slow
			began = time.Now()
			require.NoError(t, rec.Handle(ctx, handle(p)))
			again = min(again, time.Since(began))
		}
		require.Less(t, again, 2*activities.HeartbeatEvery, "once is enough")
		return &backend.Outcome{Handle: handle(p), Cached: true}, nil
	}
	require.NoError(t, b.do(t, "Prompt", promptInput(), nil))
	require.Greater(t, took, 2*activities.HeartbeatEvery)
	require.Equal(t, []bool{false}, said, "the SDK's test environment holds all others back to the end")
}
