package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

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

// stays is waits for a step that the job has no reason to leave: it is canceled when a job that leaves has begun the next
// submission, before which there is a pause of half a second.
func stays(ctx context.Context, env *testsuite.TestWorkflowEnvironment) error {
	patient, done := context.WithTimeout(ctx, 2*time.Second)
	defer done()
	if err := waits(patient); ctx.Err() != nil {
		return err
	}
	env.CancelWorkflow()
	return waits(ctx)
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
			env := newEnv(t, s)
			// From within the step: a delay from the job's begin may be over before it.
			leave := func(ctx context.Context) error {
				env.SignalWorkflow(comfy.SignalPoolGone, c.signal)
				if c.code == comfy.Canceled { // the signal has changed nothing
					return stays(ctx, env)
				}
				return waits(ctx)
			}
			var avoided []string
			s.warmUp = func(_ context.Context, j activities.Job) (*activities.Placement, error) {
				avoided = append(avoided, j.Avoid)
				pool := backend.Pool{Name: []string{"first", "second"}[len(avoided)-1], Kind: "url", Metered: c.metered}
				return &activities.Placement{Pool: pool, StartTimeout: time.Hour, RunTimeout: 30 * time.Minute}, nil
			}
			if c.collecting {
				s.collect = func(ctx context.Context, in activities.CollectInput) (*activities.Collected, error) {
					s.collect = nil
					return nil, leave(ctx)
				}
			} else {
				s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
					s.prompt = nil
					return nil, leave(ctx)
				}
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
	s := &script{}
	env := newEnv(t, s)
	s.prompt = func(ctx context.Context, _ activities.PromptInput) (*backend.Outcome, error) {
		env.RegisterDelayedCallback(func() { // both before the workflow looks at either
			env.SignalWorkflow(comfy.SignalPoolGone, "url")
			env.CancelWorkflow()
		}, 0)
		return nil, waits(ctx)
	}
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
	env := newEnv(t, s)
	s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
		s.prompt = nil
		env.RegisterDelayedCallback(func() { env.SignalWorkflow(comfy.SignalPoolGone, "url") }, 2*time.Second)
		return nil, waits(ctx)
	}
	_, f := run(t, env, request)
	require.Nil(t, f)
	require.Len(t, s.prompts, 2)
	require.Greater(t, s.prompts[1].StartBy.Sub(s.prompts[0].StartBy), time.Minute)
}

// TestPoolIsGoneUnderADyingAttempt: an attempt that dies while it is let go of times out instead of being canceled.
func TestPoolIsGoneUnderADyingAttempt(t *testing.T) {
	s := &script{}
	env := newEnv(t, s)
	s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
		s.prompt = nil
		env.SignalWorkflow(comfy.SignalPoolGone, "url")
		_ = waits(ctx)
		return nil, temporal.NewTimeoutError(enums.TIMEOUT_TYPE_HEARTBEAT, nil)
	}
	res, f := run(t, env, request)
	require.Nil(t, f)
	require.Equal(t, 2, res.Attempts)
	require.Empty(t, s.stops)
}

// TestPoolIsGoneForAJobThatWantsNoOther waits for that pool's worker.
func TestPoolIsGoneForAJobThatWantsNoOther(t *testing.T) {
	s := &script{}
	env := newEnv(t, s)
	s.prompt = func(ctx context.Context, _ activities.PromptInput) (*backend.Outcome, error) {
		env.SignalWorkflow(comfy.SignalPoolGone, "url")
		return nil, stays(ctx, env)
	}
	req := request
	req.Backend = "url"
	_, f := run(t, env, req)
	require.Equal(t, comfy.Canceled, f.Code, "nothing but the cancel has ended it")
	require.Len(t, s.prompts, 1)
}
