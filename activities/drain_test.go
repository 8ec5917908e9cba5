package activities_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// TestPromptOfAStoppingWorker: it is let go of at once, unless its pool is drained: then it goes on to its end, or until it is
// let go of.
func TestPromptOfAStoppingWorker(t *testing.T) {
	for name, c := range map[string]struct {
		drained string
		letGo   bool
		ends    bool
	}{
		"by default":       {ends: false},
		"another pool":     {drained: "local", ends: false},
		"its pool drained": {drained: "url", ends: true},
		"and let go of":    {drained: "url", letGo: true, ends: false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			stop := make(chan struct{})
			b.env.SetWorkerStopChannel(stop)
			var last activities.Heartbeat
			b.env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) { _ = details.Get(&last) })
			if c.drained != "" {
				b.all.Drain(c.drained)
			}
			b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
				require.NoError(t, rec.Handle(ctx, handle(p)))
				rec.Progress(backend.Update{Running: true, Progress: comfy.Progress{NodesDone: 7}})
				close(stop)
				if c.letGo {
					b.all.LetGo()
				}
				over := time.Minute
				if c.ends {
					over = 300 * time.Millisecond
				}
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-time.After(over): // it ends by itself
					return &backend.Outcome{Handle: handle(p)}, nil
				}
			}
			err := b.do(t, comfy.ActivityPrompt, promptInput(), nil)
			if c.ends {
				require.NoError(t, err)
				return
			}
			var app *temporal.ApplicationError
			require.ErrorAs(t, err, &app)
			require.False(t, app.NonRetryable(), "another worker goes on with it")
			require.Positive(t, app.NextRetryDelay(), "whatever attempt it is")
			require.Less(t, app.NextRetryDelay(), time.Second)
			require.Equal(t, 7, last.Update.Progress.NodesDone, "the next attempt begins with the newest word")
			require.Empty(t, b.double.canceled, "the prompt runs on")
		})
	}
}

// TestPromptThatWasNotSent: the next attempt is not left with a handle that leads nowhere.
func TestPromptThatWasNotSent(t *testing.T) {
	b := newBench(t)
	stop := make(chan struct{})
	b.env.SetWorkerStopChannel(stop)
	var said []activities.Heartbeat
	b.env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		var h activities.Heartbeat
		require.NoError(t, details.Get(&h))
		said = append(said, h)
	})
	b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
		require.NoError(t, rec.Handle(ctx, handle(p)))
		close(stop)
		<-ctx.Done()
		err := backend.Detached(ctx)
		err.Unsent = true
		return nil, err
	}
	_, final := failure(t, b.do(t, comfy.ActivityPrompt, promptInput(), nil))
	require.False(t, final)
	require.NotNil(t, said[0].Handle)
	require.Nil(t, said[len(said)-1].Handle)
}

// TestWarmUpOfADrainingWorker: jobs are placed at pools that others serve, also where they are of the same name.
func TestWarmUpOfADrainingWorker(t *testing.T) {
	b := newBench(t)
	var place activities.Placement
	require.NoError(t, b.do(t, comfy.ActivityWarmUp, job, &place))
	require.Equal(t, "url", place.Pool.Name)
	b.all.Drain("url")
	f, final := failure(t, b.do(t, comfy.ActivityWarmUp, job, nil))
	require.Equal(t, comfy.BackendUnavailable, f.Code)
	require.False(t, final, "the job waits")
	b.others = []backend.Pool{{Name: "url", Kind: "url", Slots: 4}}
	require.NoError(t, b.do(t, comfy.ActivityWarmUp, job, &place))
	require.Equal(t, 4, place.Pool.Slots, "the other worker's")
}

// TestSettle waits for the end of the jobs whose outputs are to be collected, and for nothing else.
func TestSettle(t *testing.T) {
	for name, c := range map[string]struct{ failed, closed, waits bool }{
		"its job is open":   {waits: true},
		"its job has ended": {closed: true},
		"it has failed":     {failed: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.closed = c.closed
			b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
				require.NoError(t, rec.Handle(ctx, handle(p)))
				if c.failed {
					return nil, backend.Errorf(comfy.NodeFailed, "it broke")
				}
				return &backend.Outcome{Handle: handle(p)}, nil
			}
			require.Equal(t, c.failed, b.do(t, comfy.ActivityPrompt, promptInput(), nil) != nil)
			limit := time.Minute
			if c.waits {
				limit = 2 * time.Second
			}
			ctx, done := context.WithTimeout(t.Context(), limit)
			defer done()
			b.all.Settle(ctx)
			require.Equal(t, c.waits, ctx.Err() != nil)
		})
	}
}
