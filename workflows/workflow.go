// Package workflows holds the Temporal workflow that carries one job: its place, prompt and collection, and what follows
// when one of them fails. It decides; everything that touches the world is an activity.
package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/comfy"
)

const (
	// maxRuns is how often a job may be lost while it runs before it fails.
	maxRuns = 3
	// maxSubmissions bounds the submissions that were lost before they ran, too.
	maxSubmissions = 12
	// recoverLimit is what a job that was lost may wait at least: a ComfyUI takes half a minute to start.
	recoverLimit = 3 * time.Minute
	// stopLimit is how long a worker is looked for that can stop a prompt; stopSoon where nobody serves the pool, no prompt
	// is known to run there, and one that did would cost nothing but its time.
	stopLimit = 2 * time.Minute
	stopSoon  = 15 * time.Second
	// changeStop marks jobs that stop what a canceled attempt has left to the next one.
	changeStop = "stop-what-was-left"
	// collectLimit is how long the store or a backend may fail before the job's outputs are given up.
	collectLimit = 15 * time.Minute
)

// ComfyUI is the workflow [comfy.WorkflowName]: one job, whose ID is the call_id. It ends in one of three ways: with
// a result whose files are all stored; with an application error whose type is a [comfy.Code] and whose details are a
// [comfy.Failure]; or canceled. Its input is a [comfy.Request], read here: what other Temporal users send may be
// anything, and the SDK's own failure would carry no code.
func ComfyUI(ctx workflow.Context, input converter.RawValue) (*comfy.Result, error) {
	req, err := read(input)
	j := newJob(ctx, req)
	if err := workflow.SetQueryHandlerWithOptions(ctx, comfy.QueryStatus, func() (comfy.Status, error) { return j.status, nil },
		workflow.QueryHandlerOptions{Description: "what the job is doing: phase, attempts, backend"}); err != nil {
		return nil, err
	}
	j.watchPool(ctx)
	var res *comfy.Result
	if err == nil {
		res, err = j.run(ctx)
	}
	if err != nil {
		err = j.end(ctx, err)
		j.announce(ctx, err)
		return nil, err
	}
	j.countAttempts(ctx)
	j.show(ctx, "completed", fmt.Sprintf("%s, %s, %s; ran for %s on %s", count(len(res.Images), "image"), count(len(res.Files), "other file"), count(len(res.Texts), "text"),
		time.Duration(res.Metrics.ExecutionMS)*time.Millisecond, res.Backend))
	j.announce(ctx, nil)
	return res, nil
}

// job is the state of one run of the workflow.
type job struct {
	activities.Job
	status  comfy.Status
	created time.Time

	submission int                  // of the prompt
	restarts   int                  // of prompts, by a backend itself; the client sees both together as attempts
	ran        time.Duration        // of the last prompt
	made       *activities.Prompted // by it; nil where it failed
	runs       int                  // of those, how many were lost after they had started
	unposted   int                  // of the submissions, how many no backend took
	fresh      bool
	coldStart  time.Duration
	placed     string // the pool that the search attribute names
	seat       *seat  // nil between steps
	deserted   string // the pool that has no worker, as the job was told since it was placed

	about   string   // what the job is, where nobody else says so
	lost    []string // submissions, for the details
	counted int64    // the attempts that the search attribute tells
}

func newJob(ctx workflow.Context, req comfy.Request) *job {
	info := workflow.GetInfo(ctx)
	return &job{
		about:   aboutOf(ctx, req),
		Job:     activities.Job{ID: info.WorkflowExecution.ID, RunID: info.OriginalRunID, Request: req, Child: child(info)},
		created: info.WorkflowStartTime,
		status: comfy.Status{
			ID: info.WorkflowExecution.ID, State: comfy.Running, Phase: comfy.PhaseWarming, CreatedAt: info.WorkflowStartTime,
		},
	}
}

// run repeats the three steps until the job has an end that is its own.
func (j *job) run(ctx workflow.Context) (*comfy.Result, error) {
	if (len(j.Request.Workflow) == 0) == (j.Request.WorkflowRef == "") {
		return nil, failure(comfy.InvalidWorkflow, "give either workflow or workflow_ref")
	}
	for {
		place, err := j.warmUp(ctx)
		if err != nil {
			return nil, err
		}
		out, err := j.prompt(ctx, place)
		j.made = out
		if err == nil {
			j.restarts += out.Restarts
			if !out.StartedAt.IsZero() {
				j.ran = out.EndedAt.Sub(out.StartedAt)
			}
			if err = ctx.Err(); out.Collected == nil {
				err = j.collect(ctx, place, out)
			}
			if err == nil {
				return j.result(ctx, place), nil
			}
		}
		if err := j.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

// prompt hands the next submission to the backend and waits for its end. However it ends, nothing of it runs on.
func (j *job) prompt(ctx workflow.Context, place *activities.Placement) (*activities.Prompted, error) {
	j.submission++
	j.deserted = ""
	j.status.Attempts = j.attempts()
	j.countAttempts(ctx)
	j.say(ctx, comfy.PhaseQueued, "submission %d to %s waits there or runs; under Pending Activities its heartbeat tells the node and the step", j.submission, place.Pool.Name)
	in := activities.PromptInput{
		Job: j.Job, Placement: *place, Submission: j.submission, Fresh: j.fresh,
		StartBy: j.created.Add(place.StartTimeout), Deadline: j.created.Add(place.StartTimeout + place.RunTimeout),
	}
	if j.runs > 0 {
		in.StartBy = in.Deadline // it had started in time once
	}
	if again := workflow.Now(ctx).Add(recoverLimit); j.submission > 1 && again.After(in.StartBy) {
		in.StartBy = again // it had its place already, and needs time to take another
		if again.After(in.Deadline) {
			in.StartBy = in.Deadline
		}
	}
	for {
		var out *activities.Prompted
		err := j.at(ctx, place.Pool, func(ctx workflow.Context) error {
			return workflow.ExecuteActivity(j.promptOptions(ctx, in), comfy.ActivityPrompt, in).Get(ctx, &out)
		})
		var gone *goneError
		if errors.As(err, &gone) {
			if place.Pool.Metered && !gone.ending.Stopped {
				if gone.ending.Unstopped != nil {
					in.Earlier = &activities.Heartbeat{Handle: gone.ending.Unstopped}
				}
				j.stop(ctx, in) // what runs on costs money; elsewhere it ends by itself
			}
			return nil, gone.failure()
		}
		ending := activities.EndingOf(err)
		j.ran = ending.Ran
		if h := ending.Unstopped; h != nil {
			in.Earlier = &activities.Heartbeat{Handle: h}
			j.stop(ctx, in)
			return nil, err
		}
		var timeout *temporal.TimeoutError
		var canceled *temporal.CanceledError
		if !errors.As(err, &timeout) && !errors.As(err, &canceled) {
			if f := failureOf(err); err != nil && f.Code == comfy.BackendUnavailable && !f.Ran {
				j.unposted++ // the code says so
			}
			// An attempt that wants to be repeated leaves its prompt to the next one, which a cancel prevents.
			var app *temporal.ApplicationError
			if ctx.Err() != nil && errors.As(err, &app) && !app.NonRetryable() &&
				workflow.GetVersion(ctx, changeStop, workflow.DefaultVersion, 1) != workflow.DefaultVersion {
				j.stop(ctx, in)
			}
			return out, err
		}
		if timeout != nil {
			if timeout.TimeoutType() == enums.TIMEOUT_TYPE_SCHEDULE_TO_START && in.Earlier == nil && lastWord(timeout, nil) == nil {
				j.unposted++
			}
			in.Earlier = lastWord(timeout, in.Earlier)
			if onlyAway(timeout, in.Earlier) && workflow.Now(ctx).Before(in.Deadline) {
				continue // the prompt may well run: whoever serves the pool next goes on with it
			}
		}
		if !ending.Stopped {
			j.stop(ctx, in)
		}
		f := comfy.Failure{Code: comfy.BackendUnavailable, Message: "no GPU was free within the time to start"}
		if in.Earlier != nil && !in.Earlier.RunningSince.IsZero() {
			f = comfy.Failure{Code: comfy.Timeout, Message: "the job did not end within its limit"}
		}
		return nil, late(err, f)
	}
}

// promptOptions let a prompt wait for a slot, and bound all its attempts by the job's deadline. The activity keeps its
// limits itself, and says which; these are the server's back-stop.
func (j *job) promptOptions(ctx workflow.Context, in activities.PromptInput) workflow.Context {
	wait := in.StartBy
	if in.Earlier != nil {
		wait = in.Deadline
	}
	now := workflow.Now(ctx)
	o := workflow.ActivityOptions{
		TaskQueue:              comfy.PromptTaskQueue(in.Placement.Pool.Name),
		ScheduleToStartTimeout: max(wait.Sub(now), time.Second),
		ScheduleToCloseTimeout: max(in.Deadline.Sub(now), time.Second) + time.Minute,
		HeartbeatTimeout:       heartbeatTimeout,
		WaitForCancellation:    true, // so that the job is not called canceled while the GPU works for it
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 1.5, MaximumInterval: 5 * time.Second},
		Summary:                fmt.Sprintf("run on %s, submission %d", in.Placement.Pool.Name, in.Submission),
	}
	if c := in.Placement.Child; c != nil { // the API has set it for the whole workflow
		o.Priority = temporal.Priority{PriorityKey: j.Request.Priority, FairnessKey: c.Tenant}
	}
	return workflow.WithActivityOptions(ctx, o)
}

// stop makes sure that a prompt which no activity follows any more does not run on, as long as a worker can be found.
func (j *job) stop(ctx workflow.Context, in activities.PromptInput) {
	j.say(ctx, comfy.PhaseCanceling, "stopping submission %d", in.Submission)
	ctx, done := workflow.NewDisconnectedContext(ctx)
	defer done()
	limit := stopLimit
	if in.Earlier == nil && in.Placement.Pool.Name == j.deserted && !in.Placement.Pool.Metered {
		limit = stopSoon
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              comfy.CollectTaskQueue(in.Placement.Pool.Name),
		ScheduleToStartTimeout: limit,
		ScheduleToCloseTimeout: stopLimit,
		StartToCloseTimeout:    30 * time.Second,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 1.5, MaximumInterval: 5 * time.Second},
		Summary:                fmt.Sprintf("stop submission %d", in.Submission),
	})
	if err := workflow.ExecuteActivity(ctx, comfy.ActivityStop, in).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Warn("nobody could stop the prompt; what it makes is thrown away", "error", err)
	}
}

// collect stores what the prompt has made, and could not store itself.
func (j *job) collect(ctx workflow.Context, place *activities.Placement, out *activities.Prompted) error {
	began := workflow.Now(ctx)
	j.say(ctx, comfy.PhaseCollecting, "storing %s", count(len(out.Files), "file"))
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              comfy.CollectTaskQueue(place.Pool.Name),
		ScheduleToCloseTimeout: collectLimit,
		StartToCloseTimeout:    collectLimit,
		HeartbeatTimeout:       heartbeatTimeout,
		WaitForCancellation:    true, // so that nothing is stored after the job's end
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 15 * time.Second},
		Summary:                "store " + count(len(out.Files), "file"),
	})
	err := j.at(ctx, place.Pool, func(ctx workflow.Context) error {
		return workflow.ExecuteActivity(ctx, comfy.ActivityCollect, activities.CollectInput{
			JobID: j.ID, Outcome: out.Outcome, StripMetadata: j.Request.StripMetadata,
		}).Get(ctx, &out.Collected)
	})
	out.CollectMS = workflow.Now(ctx).Sub(began).Milliseconds()
	var gone *goneError
	switch {
	case errors.As(err, &gone):
		return gone.failure()
	case err != nil:
		return late(err, comfy.Failure{Code: comfy.OutputLost, Message: "the outputs could not be collected: no worker that reaches their backend was there"})
	}
	return nil
}

// attempts is how often the job was put on a GPU, as far as is known.
func (j *job) attempts() int { return j.submission - j.unposted + j.restarts }
