package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/comfy"
)

const (
	// warmUpLimit is the time to start until the first placement tells the server's own limit.
	warmUpLimit = time.Hour
	// lookLimit bounds the look at backends that may be ready: it holds up the workflow task.
	lookLimit = time.Second
	// warmUpAttempt bounds one attempt of the warm-up, so that one whose worker has died is made again soon.
	warmUpAttempt = 30 * time.Second
)

const (
	// changeLook marks jobs without a revision that look at their backends before they wait for one.
	changeLook = "look"
	// revisionLook is the revision from which on all do.
	revisionLook = 1
)

// warmUp waits until a backend can take the job.
func (j *job) warmUp(ctx workflow.Context) (*activities.Placement, error) {
	j.say(ctx, comfy.PhaseWarming, "looking for a ComfyUI that is ready")
	place, err := j.look(ctx)
	if place == nil && err == nil {
		place, err = j.wait(ctx)
	}
	if err != nil {
		return nil, err
	}
	j.status.Backend = place.Pool.Name
	if j.placed != place.Pool.Name {
		j.placed = place.Pool.Name
		if err := workflow.UpsertTypedSearchAttributes(ctx, attributes(place)...); err != nil {
			return nil, err
		}
	}
	return place, nil
}

// look finds a pool that can take a new job at this moment, without a durable step; nil where there is none.
func (j *job) look(ctx workflow.Context) (*activities.Placement, error) {
	if j.submission > 0 || j.Child {
		return nil, nil
	}
	if j.Request.Revision < revisionLook && workflow.GetVersion(ctx, changeLook, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return nil, nil
	}
	ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		ScheduleToCloseTimeout: lookLimit, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1},
		Summary: "is a ComfyUI ready for this graph?",
	})
	var place *activities.Placement
	err := workflow.ExecuteLocalActivity(ctx, comfy.ActivityLook, j.Job).Get(ctx, &place)
	if err != nil && failureOf(err).Code != comfy.InvalidWorkflow {
		return nil, nil // it took too long, or the job is canceled: the durable step meets the same
	}
	return place, err
}

// wait is the warm-up of a job that has to wait for its place.
func (j *job) wait(ctx workflow.Context) (*activities.Placement, error) {
	began := workflow.Now(ctx)
	limit := warmUpLimit
	if s := j.Request.StartTimeoutSeconds; s > 0 {
		limit = time.Duration(min(s, comfy.MaxStartTimeoutSeconds)) * time.Second
	}
	left := max(limit-began.Sub(j.created), time.Second)
	if j.submission > 0 {
		left = max(left, recoverLimit) // it had its place already: its ComfyUI may be starting again
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ScheduleToCloseTimeout: left,
		StartToCloseTimeout:    warmUpAttempt,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 1.3, MaximumInterval: 5 * time.Second},
		Summary:                "find a ComfyUI that is ready for this graph",
	})
	var place *activities.Placement
	err := workflow.ExecuteActivity(ctx, comfy.ActivityWarmUp, j.Job).Get(ctx, &place)
	j.coldStart += workflow.Now(ctx).Sub(began)
	if err != nil {
		return nil, late(err, comfy.Failure{Code: comfy.BackendUnavailable, Message: "no ComfyUI was ready within the time to start"})
	}
	return place, nil
}
