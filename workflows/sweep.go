package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/activities"
)

// SweepName is the registered type of [Sweep].
const SweepName = "ComfydSweep"

const (
	// sweepLimit ends a sweep that gets nowhere: the next one begins anew.
	sweepLimit = 12 * time.Hour
	// sweepBeat is how soon the death of its worker is noticed. One step asks Temporal and the store for a few things.
	sweepBeat = 2 * time.Minute
)

// Sweep removes from the store what belongs to no job any more. A schedule starts it.
func Sweep(ctx workflow.Context) (*activities.Swept, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ScheduleToCloseTimeout: sweepLimit,
		HeartbeatTimeout:       sweepBeat,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 10 * time.Second, BackoffCoefficient: 2, MaximumInterval: 10 * time.Minute},
		Summary:                "remove from the store what belongs to no job any more",
	})
	var last activities.Swept
	if workflow.HasLastCompletionResult(ctx) {
		if err := workflow.GetLastCompletionResult(ctx, &last); err != nil {
			workflow.GetLogger(ctx).Warn("what the sweep before this one has done cannot be read", "error", err)
		}
	}
	var swept *activities.Swept
	err := workflow.ExecuteActivity(ctx, activities.SweepName, last.Told).Get(ctx, &swept)
	return swept, err
}
