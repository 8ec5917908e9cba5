package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/workflows"
)

var request = comfy.Request{Workflow: json.RawMessage(`{"1":{"class_type":"SaveImage","inputs":{}}}`)}

// script stands in for the activities; each step may be replaced by a test.
type script struct {
	warmUp  func(ctx context.Context, job activities.Job) (*activities.Placement, error)
	prompt  func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error)
	collect func(ctx context.Context, in activities.CollectInput) (*activities.Collected, error)
	look    func(job activities.Job) (*activities.Placement, error) // finds nothing where nil
	atOnce  *activities.Collected                                   // what Prompt stores itself

	stops     []activities.PromptInput
	prompts   []activities.PromptInput
	collected []activities.CollectInput
}

func (s *script) WarmUp(ctx context.Context, job activities.Job) (*activities.Placement, error) {
	if s.warmUp != nil {
		return s.warmUp(ctx, job)
	}
	return &activities.Placement{
		Pool: backend.Pool{Name: "url", Kind: "url"}, StartTimeout: time.Hour, RunTimeout: 30 * time.Minute, StallTimeout: time.Minute,
	}, nil
}

func (s *script) Look(_ context.Context, job activities.Job) (*activities.Placement, error) {
	if s.look != nil {
		return s.look(job)
	}
	return nil, nil
}

func (s *script) Prompt(ctx context.Context, in activities.PromptInput) (*activities.Prompted, error) {
	s.prompts = append(s.prompts, in)
	out, err := s.outcome(ctx, in)
	if err != nil {
		return nil, err
	}
	return &activities.Prompted{Outcome: *out, Collected: s.atOnce, CollectMS: 7}, nil
}

func (s *script) outcome(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
	if s.prompt != nil {
		return s.prompt(ctx, in)
	}
	began := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	return &backend.Outcome{
		Handle: backend.Handle{Pool: "url", PromptID: "p"}, StartedAt: began, EndedAt: began.Add(1500 * time.Millisecond), GPU: "L40S",
		Files: []backend.File{{NodeID: "1", Key: "images", Filename: "a.png", Folder: "output"}},
	}, nil
}

func (s *script) Collect(ctx context.Context, in activities.CollectInput) (*activities.Collected, error) {
	s.collected = append(s.collected, in)
	if s.collect != nil {
		return s.collect(ctx, in)
	}
	return &activities.Collected{Images: []comfy.Output{{Filename: "a.png", NodeID: "1", SHA256: "abc"}}}, nil
}

func (s *script) Stop(_ context.Context, in activities.PromptInput) error {
	s.stops = append(s.stops, in)
	return nil
}

// bareEnv has patience with a machine that is slow, or that stops for seconds: its times are real ones.
func bareEnv() *testsuite.TestWorkflowEnvironment {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(time.Minute)
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
	return env
}

func newEnv(t *testing.T, s *script) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	env := bareEnv()
	env.RegisterWorkflowWithOptions(workflows.ComfyUI, workflow.RegisterOptions{Name: comfy.WorkflowName})
	env.RegisterActivityWithOptions(s.Look, activity.RegisterOptions{Name: comfy.ActivityLook})
	env.RegisterActivityWithOptions(s.WarmUp, activity.RegisterOptions{Name: comfy.ActivityWarmUp})
	env.RegisterActivityWithOptions(s.Prompt, activity.RegisterOptions{Name: comfy.ActivityPrompt})
	env.RegisterActivityWithOptions(s.Stop, activity.RegisterOptions{Name: comfy.ActivityStop})
	env.RegisterActivityWithOptions(s.Collect, activity.RegisterOptions{Name: comfy.ActivityCollect})
	return env
}

func run(t *testing.T, env *testsuite.TestWorkflowEnvironment, req comfy.Request) (*comfy.Result, *comfy.Failure) {
	t.Helper()
	env.ExecuteWorkflow(comfy.WorkflowName, req)
	require.True(t, env.IsWorkflowCompleted())
	err := env.GetWorkflowError()
	if err == nil {
		var r comfy.Result
		require.NoError(t, env.GetWorkflowResult(&r))
		return &r, nil
	}
	var f comfy.Failure
	var app *temporal.ApplicationError
	var canceled *temporal.CanceledError
	switch {
	case errors.As(err, &app):
		require.NoError(t, app.Details(&f))
		require.Equal(t, app.Type(), string(f.Code))
	case errors.As(err, &canceled):
		require.NoError(t, canceled.Details(&f))
	default:
		t.Fatalf("the workflow's error has no type: %v", err)
	}
	return nil, &f
}

// fails is what an activity returns for good.
func fails(code comfy.Code, again, ran bool) error {
	return temporal.NewApplicationErrorWithOptions("it broke", string(code), temporal.ApplicationErrorOptions{
		NonRetryable: true,
		Details:      []any{activities.Failure{Failure: comfy.Failure{Code: code, Message: "it broke", NodeID: "7"}, Again: again, Ran: ran}},
	})
}

func TestCompleted(t *testing.T) {
	s := &script{}
	res, f := run(t, newEnv(t, s), request)
	require.Nil(t, f)
	require.Len(t, res.Images, 1)
	require.Equal(t, 1, res.Attempts)
	require.Equal(t, "url", res.Backend)
	require.Equal(t, int64(1500), res.Metrics.ExecutionMS)
	require.InDelta(t, 1.5, res.Metrics.GPUSeconds, 0.001)
	require.Equal(t, "L40S", res.Metrics.GPU)
	require.Len(t, s.prompts, 1)
	require.Equal(t, 1, s.prompts[0].Submission)
	require.JSONEq(t, string(request.Workflow), string(s.prompts[0].Job.Request.Workflow))
	require.False(t, s.prompts[0].Fresh)
}

func TestNodeFailureIsFinal(t *testing.T) {
	s := &script{prompt: func(context.Context, activities.PromptInput) (*backend.Outcome, error) {
		return nil, fails(comfy.NodeFailed, false, false)
	}}
	_, f := run(t, newEnv(t, s), request)
	require.Equal(t, comfy.NodeFailed, f.Code)
	require.Equal(t, "7", f.NodeID)
	require.Equal(t, 1, f.Attempts)
	require.Len(t, s.prompts, 1)
}

func TestLostWhileRunningIsBounded(t *testing.T) {
	s := &script{prompt: func(context.Context, activities.PromptInput) (*backend.Outcome, error) {
		return nil, fails(comfy.BackendLost, true, true)
	}}
	_, f := run(t, newEnv(t, s), request)
	require.Equal(t, comfy.BackendLost, f.Code)
	require.Equal(t, 3, f.Attempts)
	require.Len(t, s.prompts, 3)
	require.Equal(t, 3, s.prompts[2].Submission)
}

// TestRestartsAreAttempts: what a backend runs again by itself costs GPU time, too.
func TestRestartsAreAttempts(t *testing.T) {
	s := &script{}
	s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
		if in.Submission == 1 {
			return nil, temporal.NewApplicationErrorWithOptions("it broke", string(comfy.BackendLost), temporal.ApplicationErrorOptions{
				NonRetryable: true,
				Details:      []any{activities.Failure{Failure: comfy.Failure{Code: comfy.BackendLost}, Again: true, Ran: true, Restarts: 2}},
			})
		}
		return &backend.Outcome{Restarts: 1}, nil
	}
	res, f := run(t, newEnv(t, s), request)
	require.Nil(t, f)
	require.Equal(t, 5, res.Attempts, "two submissions and three restarts")
}

func TestLostWhileWaitingIsNotCharged(t *testing.T) {
	s := &script{}
	s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
		if in.Submission <= 5 {
			return nil, fails(comfy.BackendLost, true, false)
		}
		s.prompt = nil
		return s.outcome(ctx, in)
	}
	res, f := run(t, newEnv(t, s), request)
	require.Nil(t, f)
	require.Equal(t, 6, res.Attempts)
}

// TestWhatNoBackendTookIsNoAttempt: attempts tell how often a GPU was given the job.
func TestWhatNoBackendTookIsNoAttempt(t *testing.T) {
	s := &script{}
	s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
		if in.Submission <= 2 {
			return nil, fails(comfy.BackendUnavailable, true, false)
		}
		s.prompt = nil
		return s.outcome(ctx, in)
	}
	res, f := run(t, newEnv(t, s), request)
	require.Nil(t, f)
	require.Equal(t, 1, res.Attempts)
	require.Equal(t, 3, s.prompts[2].Submission)
}

func TestOutputLostRunsOnceMoreWithoutCache(t *testing.T) {
	s := &script{}
	s.collect = func(ctx context.Context, in activities.CollectInput) (*activities.Collected, error) {
		return nil, fails(comfy.OutputLost, true, false)
	}
	_, f := run(t, newEnv(t, s), request)
	require.Equal(t, comfy.OutputLost, f.Code)
	require.Len(t, s.prompts, 2)
	require.False(t, s.prompts[0].Fresh)
	require.True(t, s.prompts[1].Fresh)
}

func TestStoreAwayForTooLong(t *testing.T) {
	s := &script{collect: func(context.Context, activities.CollectInput) (*activities.Collected, error) {
		return nil, temporal.NewApplicationErrorWithOptions("no store", string(comfy.Storage), temporal.ApplicationErrorOptions{
			Details: []any{activities.Failure{Failure: comfy.Failure{Code: comfy.Storage, Message: "no store"}}},
		})
	}}
	_, f := run(t, newEnv(t, s), request)
	require.Equal(t, comfy.Storage, f.Code)
	require.Contains(t, f.Message, "no store")
	require.Greater(t, len(s.collected), 5, "the store is asked again for a quarter of an hour")
	require.Len(t, s.prompts, 1, "what has run does not run again because the store is away")
}

func TestNoBackendInTime(t *testing.T) {
	asked := 0
	s := &script{warmUp: func(context.Context, activities.Job) (*activities.Placement, error) {
		asked++
		return nil, temporal.NewApplicationErrorWithOptions("no ComfyUI is ready", string(comfy.BackendUnavailable), temporal.ApplicationErrorOptions{
			Details: []any{activities.Failure{Failure: comfy.Failure{Code: comfy.BackendUnavailable, Message: "no ComfyUI is ready"}, Again: true}},
		})
	}}
	req := request
	req.StartTimeoutSeconds = 60
	_, f := run(t, newEnv(t, s), req)
	require.Equal(t, comfy.BackendUnavailable, f.Code)
	require.Greater(t, asked, 5)
	require.Empty(t, s.prompts)
}

func TestInvalidWorkflowIsFinal(t *testing.T) {
	s := &script{warmUp: func(context.Context, activities.Job) (*activities.Placement, error) {
		return nil, fails(comfy.InvalidWorkflow, false, false)
	}}
	_, f := run(t, newEnv(t, s), request)
	require.Equal(t, comfy.InvalidWorkflow, f.Code)
	_, f = run(t, newEnv(t, &script{}), comfy.Request{})
	require.Equal(t, comfy.InvalidWorkflow, f.Code)
	require.Contains(t, f.Message, "workflow_ref")
}

func TestRunLimitIsFinal(t *testing.T) {
	s := &script{prompt: func(context.Context, activities.PromptInput) (*backend.Outcome, error) {
		return nil, fails(comfy.Timeout, false, false)
	}}
	_, f := run(t, newEnv(t, s), request)
	require.Equal(t, comfy.Timeout, f.Code)
	require.Len(t, s.prompts, 1)
}

func TestUnknownErrorIsInternal(t *testing.T) {
	s := &script{prompt: func(context.Context, activities.PromptInput) (*backend.Outcome, error) {
		return nil, temporal.NewNonRetryableApplicationError("a panic", "PanicError", nil)
	}}
	_, f := run(t, newEnv(t, s), request)
	require.Equal(t, comfy.Internal, f.Code)
	require.Equal(t, 1, f.Attempts)
}

func TestCancel(t *testing.T) {
	block := func(ctx context.Context) error {
		for ctx.Err() == nil { // a cancel arrives with the answer to a heartbeat
			activity.RecordHeartbeat(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
		return temporal.NewCanceledError("stopped") // as Prompt does when it has stopped its prompt
	}
	for name, s := range map[string]*script{
		"warming": {warmUp: func(context.Context, activities.Job) (*activities.Placement, error) {
			return nil, temporal.NewApplicationError("not yet", string(comfy.BackendUnavailable))
		}},
		"running": {prompt: func(ctx context.Context, _ activities.PromptInput) (*backend.Outcome, error) { return nil, block(ctx) }},
		"collecting": {collect: func(ctx context.Context, _ activities.CollectInput) (*activities.Collected, error) {
			return nil, temporal.NewApplicationError("not yet", string(comfy.Storage))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t, s)
			env.RegisterDelayedCallback(func() {
				v, err := env.QueryWorkflow(comfy.QueryStatus)
				require.NoError(t, err)
				var st comfy.Status
				require.NoError(t, v.Get(&st))
				require.Equal(t, comfy.Running, st.State)
				env.CancelWorkflow()
			}, 200*time.Millisecond)
			_, f := run(t, env, request)
			require.Equal(t, comfy.Canceled, f.Code)
		})
	}
}

// TestCancelBetweenAttempts: Temporal cancels an activity that no worker is at by itself, and then nobody has stopped the prompt.
func TestCancelBetweenAttempts(t *testing.T) {
	s := &script{}
	env := newEnv(t, s)
	s.prompt = func(context.Context, activities.PromptInput) (*backend.Outcome, error) {
		if len(s.prompts) == 1 { // before the pause of the retry policy is over
			env.RegisterDelayedCallback(env.CancelWorkflow, 100*time.Millisecond)
		}
		return nil, temporal.NewApplicationError("the worker has stopped", string(comfy.BackendLost))
	}
	_, f := run(t, env, request)
	require.Equal(t, comfy.Canceled, f.Code)
	require.Len(t, s.stops, 1)
	require.Equal(t, 1, s.stops[0].Submission)
}

// TestUnstoppedPromptIsStopped before the job ends.
func TestUnstoppedPromptIsStopped(t *testing.T) {
	h := backend.Handle{PromptID: "p", CallID: "fc-1"}
	limit := &script{prompt: func(context.Context, activities.PromptInput) (*backend.Outcome, error) {
		return nil, temporal.NewApplicationErrorWithOptions("too long", string(comfy.Timeout), temporal.ApplicationErrorOptions{
			NonRetryable: true, Details: []any{activities.Failure{Failure: comfy.Failure{Code: comfy.Timeout, Message: "too long"}, Unstopped: &h}},
		})
	}}
	_, f := run(t, newEnv(t, limit), request)
	require.Equal(t, comfy.Timeout, f.Code)
	require.Len(t, limit.stops, 1)
	require.Equal(t, "fc-1", limit.stops[0].Earlier.Handle.CallID)
}

// TestWorkerAwayForTooLong: a prompt that runs is not given up because its worker is away longer than the time to start.
func TestWorkerAwayForTooLong(t *testing.T) {
	s := &script{}
	s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
		if in.Earlier == nil {
			h := backend.Handle{Pool: "url", PromptID: "p"}
			return nil, temporal.NewTimeoutError(enums.TIMEOUT_TYPE_SCHEDULE_TO_START, nil, activities.Heartbeat{Handle: &h, RunningSince: time.Now()})
		}
		s.prompt = nil
		return s.outcome(ctx, in)
	}
	res, f := run(t, newEnv(t, s), request)
	require.Nil(t, f)
	require.Equal(t, 1, res.Attempts, "the same submission")
	require.Equal(t, "p", s.prompts[len(s.prompts)-1].Earlier.Handle.PromptID)
	require.Empty(t, s.stops)
}

// TestPromptTimesOut: the code tells whether it had run.
func TestPromptTimesOut(t *testing.T) {
	word := []any{activities.Heartbeat{Handle: &backend.Handle{PromptID: "p"}, RunningSince: time.Now()}}
	for name, c := range map[string]struct {
		timeout  enums.TimeoutType
		hb       []any
		code     comfy.Code
		attempts int
	}{
		"never begun":        {enums.TIMEOUT_TYPE_SCHEDULE_TO_START, nil, comfy.BackendUnavailable, 0},
		"died without words": {enums.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, nil, comfy.BackendUnavailable, 1},
		"had run":            {enums.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, word, comfy.Timeout, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{prompt: func(context.Context, activities.PromptInput) (*backend.Outcome, error) {
				return nil, temporal.NewTimeoutError(c.timeout, nil, c.hb...)
			}}
			_, f := run(t, newEnv(t, s), request)
			require.Equal(t, c.code, f.Code)
			require.Equal(t, c.attempts, f.Attempts, "what may have been posted counts")
			require.Len(t, s.stops, 1, "nothing runs on after the end")
		})
	}
}

// TestLostAfterItsTimeToStart: a job that was lost late still waits for its ComfyUI to come back.
func TestLostAfterItsTimeToStart(t *testing.T) {
	s := &script{}
	asked := 0
	s.warmUp = func(ctx context.Context, j activities.Job) (*activities.Placement, error) {
		asked++
		if asked > 1 && asked < 6 {
			return nil, temporal.NewApplicationErrorWithOptions("starting", string(comfy.BackendUnavailable), temporal.ApplicationErrorOptions{
				NextRetryDelay: 10 * time.Second,
				Details:        []any{activities.Failure{Failure: comfy.Failure{Code: comfy.BackendUnavailable, Message: "starting"}}},
			})
		}
		return &activities.Placement{Pool: backend.Pool{Name: "url", Kind: "url"}, StartTimeout: time.Second, RunTimeout: 30 * time.Minute}, nil
	}
	s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
		if in.Submission == 1 {
			return nil, fails(comfy.BackendLost, true, true)
		}
		s.prompt = nil
		return s.outcome(ctx, in)
	}
	req := request
	req.StartTimeoutSeconds = 1
	res, f := run(t, newEnv(t, s), req)
	require.Nil(t, f)
	require.Equal(t, 2, res.Attempts)
}

func TestQueryFollowsThePhases(t *testing.T) {
	var seen []comfy.Phase
	s := &script{}
	env := newEnv(t, s)
	look := func() {
		v, err := env.QueryWorkflow(comfy.QueryStatus)
		require.NoError(t, err)
		var st comfy.Status
		require.NoError(t, v.Get(&st))
		seen = append(seen, st.Phase)
	}
	s.warmUp = func(ctx context.Context, j activities.Job) (*activities.Placement, error) {
		look()
		s.warmUp = nil
		return s.WarmUp(ctx, j)
	}
	s.prompt = func(ctx context.Context, in activities.PromptInput) (*backend.Outcome, error) {
		look()
		s.prompt = nil
		s.prompts = nil
		return s.outcome(ctx, in)
	}
	s.collect = func(ctx context.Context, in activities.CollectInput) (*activities.Collected, error) {
		look()
		s.collect = nil
		return s.Collect(ctx, in)
	}
	_, f := run(t, env, request)
	require.Nil(t, f)
	require.Equal(t, []comfy.Phase{comfy.PhaseWarming, comfy.PhaseQueued, comfy.PhaseCollecting}, seen)
}
