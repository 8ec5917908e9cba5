package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/workflows"
)

const receiver = "https://example.com/hook?token=secret"

// told runs a job with a webhook and returns what its own workflow was given; nil where there was none.
func told(t *testing.T, env *testsuite.TestWorkflowEnvironment) *comfy.Webhook {
	t.Helper()
	var in *comfy.Webhook
	env.RegisterWorkflowWithOptions(workflows.Webhook, workflow.RegisterOptions{Name: comfy.WebhookWorkflowName})
	env.OnWorkflow(comfy.WebhookWorkflowName, mock.Anything, mock.Anything).Return(
		func(ctx workflow.Context, w comfy.Webhook) (*comfy.Delivery, error) {
			in = &w
			require.Equal(t, "webhook/"+w.JobID, workflow.GetInfo(ctx).WorkflowExecution.ID)
			return nil, nil
		})
	req := request
	req.WebhookURL = receiver
	run(t, env, req)
	return in
}

// TestEveryEndIsTold by a workflow of its own.
func TestEveryEndIsTold(t *testing.T) {
	for name, s := range map[string]*script{
		"completed": {},
		"failed": {prompt: func(context.Context, activities.PromptInput) (*backend.Outcome, error) {
			return nil, fails(comfy.NodeFailed, false, false)
		}},
		"invalid": {warmUp: func(context.Context, activities.Job) (*activities.Placement, error) {
			return nil, fails(comfy.InvalidWorkflow, false, false)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			in := told(t, newEnv(t, s))
			require.NotNil(t, in)
			require.Equal(t, comfy.Webhook{JobID: "default-test-workflow-id", RunID: "default-test-run-id", URL: receiver}, *in)
		})
	}
	t.Run("canceled", func(t *testing.T) {
		env := newEnv(t, &script{warmUp: func(context.Context, activities.Job) (*activities.Placement, error) {
			return nil, temporal.NewApplicationError("not yet", string(comfy.BackendUnavailable))
		}})
		env.RegisterDelayedCallback(env.CancelWorkflow, time.Second)
		require.NotNil(t, told(t, env))
		require.True(t, temporal.IsCanceledError(env.GetWorkflowError()))
	})
	t.Run("nobody", func(t *testing.T) {
		env := newEnv(t, &script{})
		env.RegisterWorkflowWithOptions(workflows.Webhook, workflow.RegisterOptions{Name: comfy.WebhookWorkflowName})
		env.OnWorkflow(comfy.WebhookWorkflowName, mock.Anything, mock.Anything).Panic("nobody asked for it")
		_, f := run(t, env, request)
		require.Nil(t, f)
	})
}

// TestAnEndThatIsNoneIsNotTold: a parent's retry policy starts the job again.
func TestAnEndThatIsNoneIsNotTold(t *testing.T) {
	end := func(code comfy.Code) error {
		return temporal.NewApplicationErrorWithOptions("it broke", string(code), temporal.ApplicationErrorOptions{NonRetryable: !code.Retryable()})
	}
	for name, c := range map[string]struct {
		policy *temporal.RetryPolicy
		end    error
		again  bool
	}{
		"again":         {&temporal.RetryPolicy{MaximumAttempts: 3}, end(comfy.BackendLost), true},
		"for ever":      {&temporal.RetryPolicy{}, end(comfy.BackendLost), true},
		"the last":      {&temporal.RetryPolicy{MaximumAttempts: 2}, end(comfy.BackendLost), false},
		"final":         {&temporal.RetryPolicy{}, end(comfy.NodeFailed), false},
		"by its parent": {&temporal.RetryPolicy{NonRetryableErrorTypes: []string{"backend_lost"}}, end(comfy.BackendLost), false},
		"no policy":     {nil, end(comfy.BackendLost), false},
		"canceled":      {&temporal.RetryPolicy{}, temporal.NewCanceledError(), false},
		"completed":     {&temporal.RetryPolicy{}, nil, false},
	} {
		require.Equal(t, c.again, workflows.StartsAgain(&workflow.Info{Attempt: 2, RetryPolicy: c.policy}, c.end), name)
	}
}

// deliveries runs the webhook's workflow against a receiver that answers so, and says at which second of it each attempt was.
func deliveries(t *testing.T, answer func(n int) comfy.Delivery) (at []time.Duration, env *testsuite.TestWorkflowEnvironment) {
	t.Helper()
	env = bareEnv()
	began := env.Now()
	env.RegisterWorkflowWithOptions(workflows.Webhook, workflow.RegisterOptions{Name: comfy.WebhookWorkflowName})
	env.RegisterActivityWithOptions(func(_ context.Context, in comfy.Webhook) (*comfy.Delivery, error) {
		require.Equal(t, receiver, in.URL)
		require.Empty(t, in.Earlier, "an attempt need not know of those before")
		at = append(at, env.Now().Sub(began).Round(time.Second))
		d := answer(len(at))
		return &d, nil
	}, activity.RegisterOptions{Name: comfy.ActivityDeliver})
	env.ExecuteWorkflow(comfy.WebhookWorkflowName, comfy.Webhook{JobID: "j", RunID: "r", URL: receiver, Earlier: []comfy.Delivery{{HTTPStatus: 500}}})
	require.True(t, env.IsWorkflowCompleted())
	return at, env
}

// TestWebhookSchedule is the one that Standard Webhooks gives.
func TestWebhookSchedule(t *testing.T) {
	at, env := deliveries(t, func(int) comfy.Delivery {
		return comfy.Delivery{Outcome: comfy.DeliveryFailed, HTTPStatus: 500, Error: "HTTP 500"}
	})
	var pauses []time.Duration
	for i := 1; i < len(at); i++ {
		pauses = append(pauses, at[i]-at[i-1])
	}
	require.Equal(t, []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour}, pauses)
	var app *temporal.ApplicationError
	require.ErrorAs(t, env.GetWorkflowError(), &app)
	require.Equal(t, "failed", app.Type())
	require.Equal(t, "HTTP 500", app.Message())
}

// TestWebhookEnds: with the first success, and with what no later attempt can better.
func TestWebhookEnds(t *testing.T) {
	at, env := deliveries(t, func(n int) comfy.Delivery {
		if n == 3 {
			return comfy.Delivery{Outcome: comfy.Delivered, HTTPStatus: 204}
		}
		return comfy.Delivery{Outcome: comfy.DeliveryFailed, HTTPStatus: 503, RetryAfterSeconds: []int{1, 3600}[n-1]}
	})
	require.NoError(t, env.GetWorkflowError())
	var d comfy.Delivery
	require.NoError(t, env.GetWorkflowResult(&d))
	require.Equal(t, 204, d.HTTPStatus)
	require.Equal(t, []time.Duration{0, 5 * time.Second, time.Hour + 5*time.Second}, at, "a receiver may ask for longer pauses, and not for shorter ones")

	at, _ = deliveries(t, func(n int) comfy.Delivery {
		return comfy.Delivery{Outcome: map[bool]comfy.DeliveryOutcome{true: comfy.DeliveryFailed, false: comfy.DeliveryGone}[n == 1], RetryAfterSeconds: 1 << 30}
	})
	require.Equal(t, []time.Duration{0, 24 * time.Hour}, at, "and not for more than a day")

	for _, outcome := range []comfy.DeliveryOutcome{comfy.DeliveryGone, comfy.DeliveryRefused, comfy.DeliveryForgotten} {
		at, env = deliveries(t, func(int) comfy.Delivery { return comfy.Delivery{Outcome: outcome, Error: "why"} })
		require.Len(t, at, 1)
		var app *temporal.ApplicationError
		require.ErrorAs(t, env.GetWorkflowError(), &app)
		require.Equal(t, string(outcome), app.Type())
	}
}
