package worker

import (
	"context"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
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
