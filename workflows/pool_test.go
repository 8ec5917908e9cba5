package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// waits stands in for a step that no worker takes: Temporal cancels it as soon as the workflow wants it.
func waits(ctx context.Context) error {
	for ctx.Err() == nil {
		activity.RecordHeartbeat(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	return temporal.NewCanceledError("ACTIVITY_ID_NOT_STARTED")
}

// TestPoolIsGone: a job whose pool has lost its last worker goes elsewhere, from any step that needs the pool.
func TestPoolIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		metered, collecting bool
		signal              string
		stops, prompts      int
		code                comfy.Code
	}{
		"while it waits or runs":          {signal: "first", prompts: 2},
		"what costs money is stopped":     {signal: "first", metered: true, stops: 1, prompts: 2},
		"while its outputs are collected": {signal: "first", collecting: true, prompts: 2},
		"another pool":                    {signal: "other", prompts: 1, stops: 1, code: comfy.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{}
			var avoided []string
			s.warmUp = func(_ context.Context, j activities.Job) (*activities.Placement, error) {
				avoided = append(avoided, j.Avoid)
				pool := backend.Pool{Name: []string{"first", "second"}[len(avoided)-1], Kind: "url", Metered: c.metered}
				return &activities.Placement{Pool: pool, StartTimeout: time.Hour, RunTimeout: 30 * time.Minute}, nil
			}
			if c.collecting {
				s.collect = func(ctx context.Context, in activities.CollectInput) (*activities.Collected, error) {
					s.collect = nil
					return nil, waits(ctx)
				}
			} else {
				s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
					s.prompt = nil
					return nil, waits(ctx)
				}
			}
			env := newEnv(t, s)
			env.RegisterDelayedCallback(func() { env.SignalWorkflow(comfy.SignalPoolGone, c.signal) }, 200*time.Millisecond)
			if c.code == comfy.Canceled { // the signal has changed nothing
				env.RegisterDelayedCallback(env.CancelWorkflow, 400*time.Millisecond)
			}
			res, f := run(t, env, request)
			require.Len(t, s.prompts, c.prompts)
			require.Len(t, s.stops, c.stops)
			if c.code != "" {
				require.Equal(t, c.code, f.Code)
				return
			}
			require.Nil(t, f)
			require.Equal(t, "second", res.Backend)
			require.Equal(t, 2, res.Attempts)
			require.Equal(t, []string{"", "first"}, avoided)
		})
	}
}

// TestPoolIsGoneWhileTheJobIsCanceled: the cancel wins.
func TestPoolIsGoneWhileTheJobIsCanceled(t *testing.T) {
	s := &script{prompt: func(ctx context.Context, _ activities.PromptInput) (*backend.Outcome, error) { return nil, waits(ctx) }}
	env := newEnv(t, s)
	env.RegisterDelayedCallback(func() {
		env.SignalWorkflow(comfy.SignalPoolGone, "url")
		env.CancelWorkflow()
	}, 200*time.Millisecond)
	_, f := run(t, env, request)
	require.Equal(t, comfy.Canceled, f.Code)
	require.Len(t, s.prompts, 1)
}

// TestPoolIsGoneAfterTheTimeToStart: a job that is moved late has time to take its place elsewhere.
func TestPoolIsGoneAfterTheTimeToStart(t *testing.T) {
	s := &script{}
	s.warmUp = func(context.Context, activities.Job) (*activities.Placement, error) {
		return &activities.Placement{Pool: backend.Pool{Name: "url", Kind: "url"}, StartTimeout: time.Second, RunTimeout: 30 * time.Minute}, nil
	}
	s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
		s.prompt = nil
		return nil, waits(ctx)
	}
	env := newEnv(t, s)
	env.RegisterDelayedCallback(func() { env.SignalWorkflow(comfy.SignalPoolGone, "url") }, 2*time.Second)
	_, f := run(t, env, request)
	require.Nil(t, f)
	require.Len(t, s.prompts, 2)
	require.Greater(t, s.prompts[1].StartBy.Sub(s.prompts[0].StartBy), time.Minute)
}

// TestPoolIsGoneUnderADyingAttempt: an attempt that dies while it is let go of times out instead of being canceled.
func TestPoolIsGoneUnderADyingAttempt(t *testing.T) {
	s := &script{}
	s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
		s.prompt = nil
		_ = waits(ctx)
		return nil, temporal.NewTimeoutError(enums.TIMEOUT_TYPE_HEARTBEAT, nil)
	}
	env := newEnv(t, s)
	env.RegisterDelayedCallback(func() { env.SignalWorkflow(comfy.SignalPoolGone, "url") }, 200*time.Millisecond)
	res, f := run(t, env, request)
	require.Nil(t, f)
	require.Equal(t, 2, res.Attempts)
	require.Empty(t, s.stops)
}

// TestPoolIsGoneForAJobThatWantsNoOther waits for that pool's worker.
func TestPoolIsGoneForAJobThatWantsNoOther(t *testing.T) {
	s := &script{prompt: func(ctx context.Context, _ activities.PromptInput) (*backend.Outcome, error) { return nil, waits(ctx) }}
	env := newEnv(t, s)
	req := request
	req.Backend = "url"
	env.RegisterDelayedCallback(func() { env.SignalWorkflow(comfy.SignalPoolGone, "url") }, 200*time.Millisecond)
	env.RegisterDelayedCallback(env.CancelWorkflow, 400*time.Millisecond)
	_, f := run(t, env, req)
	require.Equal(t, comfy.Canceled, f.Code, "nothing but the cancel has ended it")
	require.Len(t, s.prompts, 1)
}
