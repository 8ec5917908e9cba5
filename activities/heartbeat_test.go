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
)

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
		}, 5*activities.HeartbeatEvery, time.Millisecond, "it says nothing for longer than a heartbeat may take")
		began := time.Now()
		require.NoError(t, rec.Handle(ctx, handle(p)))
		took = time.Since(began)
		began = time.Now()
		require.NoError(t, rec.Handle(ctx, handle(p)))
		require.Less(t, time.Since(began), activities.HeartbeatEvery, "once is enough")
		return &backend.Outcome{Handle: handle(p), Cached: true}, nil
	}
	require.NoError(t, b.do(t, "Prompt", promptInput(), nil))
	require.Greater(t, took, 2*activities.HeartbeatEvery)
	require.Equal(t, []bool{false}, said, "the SDK's test environment holds all others back to the end")
}
