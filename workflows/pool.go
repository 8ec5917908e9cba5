package workflows

import (
	"errors"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// seat is the job's place at a pool while one of its steps waits or runs there.
type seat struct {
	pool  string
	leave workflow.CancelFunc
	gone  bool // the last worker of the pool is
}

// watchPool lets go of a step when it is told that no worker serves its pool any more: it would wait in that pool's
// queue for as long as its limits allow.
func (j *job) watchPool(ctx workflow.Context) {
	gone := workflow.GetSignalChannel(ctx, comfy.SignalPoolGone)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var pool string
			gone.Receive(ctx, &pool)
			j.deserted = pool
			if j.Request.Backend == pool {
				continue // it wants this one and no other: its worker may come back
			}
			if j.placed == pool {
				j.placed = "" // whoever looks for the jobs of that pool must not find this one again
				if err := workflow.UpsertTypedSearchAttributes(ctx, attrBackend.ValueUnset()); err != nil {
					workflow.GetLogger(ctx).Error("the search attributes still name the pool that is gone", "error", err)
				}
			}
			if j.seat != nil && j.seat.pool == pool {
				j.seat.gone = true
				j.seat.leave()
			}
		}
	})
}

// at does a step of the job at a pool. Where the pool's last worker is gone the step fails with BackendLost, and the job
// goes on elsewhere.
func (j *job) at(ctx workflow.Context, pool backend.Pool, step func(workflow.Context) error) error {
	inner, leave := workflow.WithCancel(ctx)
	defer leave()
	s := &seat{pool: pool.Name, leave: leave}
	j.seat = s
	err := step(inner)
	j.seat = nil
	// An attempt that dies while it is let go of times out; whatever else it says of itself holds.
	var timeout *temporal.TimeoutError
	if !s.gone || ctx.Err() != nil || (!temporal.IsCanceledError(err) && !errors.As(err, &timeout)) {
		return err
	}
	workflow.GetLogger(ctx).Warn("no worker serves the job's pool any more, the job goes elsewhere", "pool", pool.Name)
	return &goneError{pool: pool, ending: activities.EndingOf(err)}
}

// goneError is the end of a step whose pool has no worker any more.
type goneError struct {
	pool   backend.Pool
	ending activities.Ending
}

func (e *goneError) Error() string { return "no worker serves the pool " + e.pool.Name + " any more" }

// failure makes the job go on with another submission.
func (e *goneError) failure() error {
	f := activities.Failure{Failure: comfy.Failure{Code: comfy.BackendLost, Message: e.Error()}, Again: true}
	return temporal.NewApplicationErrorWithOptions(f.Message, string(f.Code), temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{f},
	})
}
