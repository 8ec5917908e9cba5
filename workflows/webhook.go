package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/comfy"
)

const (
	// maxRetryAfter bounds the pause that a receiver may ask for.
	maxRetryAfter = 24 * time.Hour
	// deliverLimit is how long somebody is looked for who can make one attempt, and deliverAttempt bounds it then. It waits
	// for the receiver for 15 s; the rest is for Temporal and the store.
	deliverLimit   = 7 * 24 * time.Hour
	deliverAttempt = 30 * time.Second
)

// changeWebhook marks children that tell a receiver: earlier versions passed over the address in their input.
const changeWebhook = "webhook"

// webhookPauses stand before the second attempt and each later one: the schedule that Standard Webhooks gives. It takes 27.6
// hours.
var webhookPauses = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
}

// announce has a workflow of its own tell the job's receiver, and waits until Temporal has it, so that no crash loses it; not
// until the receiver has answered, which never holds a job up. A job that a parent's retry policy starts again has not
// ended yet. Where the ID has had a job before, whose receiver has not answered yet, that message gives way.
func (j *job) announce(ctx workflow.Context, end error) {
	info := workflow.GetInfo(ctx)
	if j.Request.WebhookURL == "" || startsAgain(info, end) {
		return
	}
	if j.Child && workflow.GetVersion(ctx, changeWebhook, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return
	}
	ctx, _ = workflow.NewDisconnectedContext(ctx) // never ended: that would cancel the child
	in := comfy.Webhook{JobID: j.ID, RunID: info.WorkflowExecution.RunID, URL: j.Request.WebhookURL}
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:        comfy.WebhookWorkflowID(j.ID),
		ParentClosePolicy: enums.PARENT_CLOSE_POLICY_ABANDON,
		//lint:ignore SA1019 what stands in its place is not for children
		WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING,
		StaticSummary:         "tell " + comfy.Literal(in.Host(), maxLost),
	})
	if err := workflow.ExecuteChildWorkflow(ctx, comfy.WebhookWorkflowName, in).GetChildWorkflowExecution().Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Error("nobody is told of the job's end", "error", err)
	}
}

// startsAgain tells whether Temporal starts the job once more by its parent's retry policy.
func startsAgain(info *workflow.Info, end error) bool {
	var app *temporal.ApplicationError
	if info.RetryPolicy == nil || !errors.As(end, &app) || app.NonRetryable() || slices.Contains(info.RetryPolicy.NonRetryableErrorTypes, app.Type()) {
		return false
	}
	return info.RetryPolicy.MaximumAttempts == 0 || info.Attempt < info.RetryPolicy.MaximumAttempts
}

// Webhook is the workflow [comfy.WebhookWorkflowName]. Each attempt is an activity with what came of it as its result, and
// each pause a timer, so that the history is the log. It fails, with the last outcome as the error's type, where nobody was
// told.
func Webhook(ctx workflow.Context, in comfy.Webhook) (*comfy.Delivery, error) {
	for n := 1; ; n++ {
		show(ctx, "attempt %d of %d", n, len(webhookPauses)+1)
		d, err := deliver(ctx, in, n)
		if err != nil {
			return nil, err
		}
		if d.Outcome == comfy.Delivered {
			show(ctx, "delivered: HTTP %d", d.HTTPStatus)
			return d, nil
		}
		if d.Outcome != comfy.DeliveryFailed || n > len(webhookPauses) {
			show(ctx, "given up: %s", comfy.Literal(d.Error, maxReason))
			return nil, temporal.NewNonRetryableApplicationError(d.Error, string(d.Outcome), nil)
		}
		pause := max(webhookPauses[n-1], min(time.Duration(d.RetryAfterSeconds)*time.Second, maxRetryAfter))
		show(ctx, "attempt %d failed, the next is in %s: %s", n, pause, comfy.Literal(d.Error, maxReason))
		if err := workflow.NewTimerWithOptions(ctx, pause, workflow.TimerOptions{Summary: fmt.Sprintf("pause before attempt %d", n+1)}).Get(ctx, nil); err != nil {
			return nil, err
		}
	}
}

// deliver makes one attempt. What Temporal repeats here is no attempt yet: the job's end was not to be had, or the process
// that was at it has died, and nobody knows whether the receiver has heard of it.
func deliver(ctx workflow.Context, in comfy.Webhook, n int) (*comfy.Delivery, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              comfy.WebhookTaskQueue,
		ScheduleToCloseTimeout: deliverLimit,
		StartToCloseTimeout:    deliverAttempt,
		HeartbeatTimeout:       heartbeatTimeout,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: time.Minute},
		Summary:                fmt.Sprintf("attempt %d", n),
	})
	in.Earlier = nil // it is the log's
	var d *comfy.Delivery
	err := workflow.ExecuteActivity(ctx, comfy.ActivityDeliver, in).Get(ctx, &d)
	var timeout *temporal.TimeoutError
	if errors.As(err, &timeout) {
		return nil, temporal.NewNonRetryableApplicationError(
			"no API has delivered it within "+deliverLimit.String()+": comfyd api, or comfyd serve, does, on the task queue "+comfy.WebhookTaskQueue, string(comfy.DeliveryFailed), err)
	}
	return d, err
}

func show(ctx workflow.Context, format string, args ...any) {
	workflow.SetCurrentDetails(ctx, fmt.Sprintf(format, args...))
}
