package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"

	"github.com/comfyd/comfyd/comfy"
)

const (
	// maxDeliveries is how many webhooks one process posts at once. They are apart from all other work, so that receivers that
	// are slow hold up nothing but webhooks; Temporal lets tenants alternate.
	maxDeliveries = 100
	// deliveryPollers are few: those of a process that has died may each swallow one attempt.
	deliveryPollers = 2
)

// Webhooks is a worker that posts webhooks, for the process that has what signs them. Fatal is told when it can serve its
// queue no longer.
func Webhooks(c client.Client, deliver func(context.Context, comfy.Webhook) (*comfy.Delivery, error), fatal func(error)) worker.Worker {
	w := worker.New(c, comfy.WebhookTaskQueue, worker.Options{
		MaxConcurrentActivityExecutionSize: maxDeliveries, MaxConcurrentActivityTaskPollers: deliveryPollers, DisableWorkflowWorker: true, DisableRegistrationAliasing: true,
		WorkerStopTimeout: stopTimeout, MaxHeartbeatThrottleInterval: heartbeatThrottle, OnFatalError: fatal,
	})
	register(w, comfy.ActivityDeliver, func(ctx context.Context, in comfy.Webhook) (*comfy.Delivery, error) {
		defer beat(ctx)()
		return deliver(ctx, in)
	})
	return w
}

// tell starts the webhook of a run of a job, unless it was started. Where the ID has got another run meanwhile, that one's end
// is told; where it had one before whose message is still on its way, that message gives way.
func tell(c client.Client, inputs converter.DataConverter) func(ctx context.Context, jobID, runID string) error {
	return func(ctx context.Context, jobID, runID string) error {
		ctx, done := context.WithTimeout(ctx, askTimeout)
		defer done()
		var r comfy.Request
		var forgotten *serviceerror.NotFound
		known, err := readInput(ctx, c, inputs, jobID, runID, &r)
		if errors.As(err, &forgotten) {
			return nil // its lists lag behind
		}
		if err != nil || !known || r.WebhookURL == "" {
			return err
		}
		latest, err := c.DescribeWorkflowExecution(ctx, jobID, "")
		if err != nil || latest.GetWorkflowExecutionInfo().GetExecution().GetRunId() != runID {
			return err
		}
		in := comfy.Webhook{JobID: jobID, RunID: runID, URL: r.WebhookURL}
		options := client.StartWorkflowOptions{
			ID: comfy.WebhookWorkflowID(jobID), TaskQueue: comfy.TaskQueue, WorkflowIDReusePolicy: enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
			WorkflowExecutionErrorWhenAlreadyStarted: true,
		}
		_, err = c.ExecuteWorkflow(ctx, options, comfy.WebhookWorkflowName, in)
		var already *serviceerror.WorkflowExecutionAlreadyStarted
		if errors.As(err, &already) {
			var earlier comfy.Webhook
			if known, err := readInput(ctx, c, inputs, options.ID, "", &earlier); err != nil || !known || earlier.RunID == runID {
				return err
			}
			options.WorkflowIDReusePolicy, options.WorkflowIDConflictPolicy = enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE, enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
			_, err = c.ExecuteWorkflow(ctx, options, comfy.WebhookWorkflowName, in)
		}
		if err != nil {
			return fmt.Errorf("starting the webhook of job %s: %w", jobID, err)
		}
		return nil
	}
}

// readInput reads what a workflow was started with. What cannot be read is none of ours, or another worker has the key: then
// it is not known.
func readInput(ctx context.Context, c client.Client, inputs converter.DataConverter, id, runID string, into any) (known bool, err error) {
	began, err := c.GetWorkflowHistory(ctx, id, runID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT).Next()
	if err != nil {
		return false, fmt.Errorf("reading what %s was started with: %w", id, err)
	}
	return inputs.FromPayloads(began.GetWorkflowExecutionStartedEventAttributes().GetInput(), into) == nil, nil
}

// beat tells Temporal each second that the activity of ctx is being worked on, so that its worker's death is noticed soon;
// until stop.
func beat(ctx context.Context) (stop func()) {
	over, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(heartbeatThrottle)
		defer tick.Stop()
		for {
			activity.RecordHeartbeat(ctx)
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(over)
		<-gone
	}
}
