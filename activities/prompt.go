package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/logs"
)

// cancelTimeout bounds how long a prompt that must stop is waited for. ComfyUI can stop only between nodes or at a
// progress tick: one that is inside a long node ends later by itself, and its result is thrown away.
const cancelTimeout = 15 * time.Second

// handOver is how long after the end of an attempt whose worker stops the next one may begin. It says so itself, because
// the pauses of the retry policy grow with each attempt, and a job may see many workers go.
const handOver = 50 * time.Millisecond

// storeTries is how many attempts end because the store does not take the texts of a prompt that has ended well.
const storeTries = 20

// stopTimeout bounds one attempt of Stop.
const stopTimeout = 25 * time.Second

// Why a prompt is stopped by its own limits, as causes of the context that it runs under.
var (
	errStartLimit = errors.New("time to start is over")
	errRunLimit   = errors.New("time to run is over")
	errStopping   = errors.New("the worker stops")
)

// PromptInput is one submission of a job.
type PromptInput struct {
	Job        Job       `json:"job"`
	Placement  Placement `json:"placement"`
	Submission int       `json:"submission"`
	// StartBy is when the prompt must have started.
	StartBy time.Time `json:"start_by"`
	// Deadline is when it must have ended, whatever attempt this is.
	Deadline time.Time `json:"deadline"`
	// Fresh asks that nothing comes from ComfyUI's cache.
	Fresh bool `json:"fresh,omitempty"`
	// Earlier is the last word of an activity that timed out on this same submission, to go on from.
	Earlier *Heartbeat `json:"earlier,omitempty"`
}

// PromptID names the n-th submission of a job on a backend: a canonical lower-case UUID (newer ComfyUI servers accept
// nothing else) that no other run of the job, and no other submission, ever has, so that an old result cannot be taken
// for a new one.
func PromptID(job Job, n int) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "comfyd:%s/%s/%d", job.ID, job.RunID, n)).String()
}

// Prompted is what a submission has made.
type Prompted struct {
	backend.Outcome
	// Collected are its outputs, where they could be stored at once; nil where Collect has to do it.
	Collected *Collected `json:"collected,omitempty"`
	// CollectMS is how long that took.
	CollectMS int64 `json:"collect_ms,omitempty"`
}

// Prompt carries a submission from post to end, and so holds a slot of its backend as long as the backend works for it.
// Its first heartbeat makes the handle durable before the prompt is posted; an attempt after a worker's death
// re-attaches by it. Its errors carry a [Failure] and are final for the activity: what follows is the workflow's
// decision. The one that is not says that this worker lets go of a prompt that runs on.
func (a *Activities) Prompt(ctx context.Context, in PromptInput) (*Prompted, error) {
	a.watchClock(ctx)
	source := a.o.Live.Begin(in.Job.ID)
	defer source.End()
	b := a.backend(in.Placement.Pool.Name)
	if b == nil {
		return nil, fail(backend.Errorf(comfy.BackendUnavailable, "this worker does not serve the pool %q", in.Placement.Pool.Name))
	}
	defer a.load.enter(in.Placement.Pool.Name, in.Job.ID)()
	if c := in.Placement.Child; c != nil {
		in.Job.Request.Images = c.Images
	}
	run, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		if a.drain.stopping(ctx, in.Placement.Pool.Name, run.Done()) {
			stop(errStopping)
		}
	}()
	rec := newRecorder(run, a.o.Store, source, comfy.OutputPrefix(in.Job.ID), in.Earlier)
	// To the very end: stopping a prompt takes longer than the heartbeat timeout.
	defer rec.beat(limits{startBy: rec.startBy(in.StartBy), deadline: in.Deadline, run: in.Placement.RunTimeout, stop: stop})()
	p, err := a.prompt(ctx, in.Job, in.Submission, in.Fresh)
	if err != nil {
		return nil, err
	}
	p.StallTimeout, p.RunTimeout = in.Placement.StallTimeout, in.Placement.RunTimeout
	p.GPU = backend.WantOf(&in.Job.Request).GPUOf(b.Pool())
	out, err := a.carry(run, in, b, p, rec)
	if unsent(err) {
		rec.forget() // or the next attempt would take the prompt for lost, and count it
	}
	if err == nil {
		err = a.slim(run, out, in.Job.ID)
	}
	if out != nil {
		a.janitor.later(cleanup{backend: b, handle: out.Handle, files: out.Files, workflow: in.Job.execution(), ended: true, about: logs.Of(ctx)})
	} else if h := rec.handle(); h != nil {
		a.janitor.later(cleanup{backend: b, handle: *h, workflow: in.Job.execution(), about: logs.Of(ctx)})
	}
	switch {
	case err == nil:
		return a.collectAtOnce(run, b, in.Job, out), nil
	case errors.Is(context.Cause(run), errStopping) && failureOf(err).Code == comfy.Timeout:
		// The prompt has been interrupted because it showed no sign of life: the next attempt could not tell by whom.
	case run.Err() != nil:
		return nil, a.stopped(ctx, context.Cause(run), b, rec, in)
	case handsBack(ctx, err):
		return nil, again(err)
	case out != nil && failureOf(err).Code == comfy.Storage && activity.GetInfo(ctx).Attempt < storeTries:
		rec.last()
		return nil, again(err) // the prompt has ended well, and is found again when the store is back
	}
	f := failureOf(err)
	f.Ran = f.Ran || rec.running() // the last word of an earlier attempt, too
	f.RanMS = rec.ran().Milliseconds()
	if f.Code == comfy.Storage && !f.Ran {
		f.Again = true // an input could not be read: nothing has run yet
	}
	return nil, appError(f, err, temporal.ApplicationErrorOptions{NonRetryable: true})
}

// unsent tells whether the error of a run says that its prompt was never handed over.
func unsent(err error) bool {
	var be *backend.Error
	return errors.As(err, &be) && be.Unsent
}

// carry runs the prompt, or goes on with the one that an earlier attempt has posted.
func (a *Activities) carry(ctx context.Context, in PromptInput, b backend.Backend, p *backend.Prompt, rec *recorder) (*backend.Outcome, error) {
	h := rec.handle()
	if h != nil || firstAttempt(ctx, in.Job) || b.Pool().Idempotent {
		return b.Run(ctx, p, h, rec)
	}
	// An earlier attempt, or a run that was reset since, has left no handle: either it died before it posted, or the
	// heartbeat that held the handle never arrived. The prompt's ID is known all the same, so any server that has it is
	// found.
	sought := bare(b, in)
	out, err := b.Run(ctx, p, &sought, rec)
	var be *backend.Error
	if errors.As(err, &be) && be.Code == comfy.BackendLost && !be.Ran {
		return b.Run(ctx, p, nil, rec)
	}
	return out, err
}

// stopped says what the end of an activity's context means for the prompt. It is stopped only where its job is over:
// canceled, past its limits, or closed behind our back. A worker that shuts down, a lost connection to Temporal or a
// successor that has taken over merely end this attempt.
func (a *Activities) stopped(ctx context.Context, cause error, b backend.Backend, rec *recorder, in PromptInput) error {
	var limit *backend.Error
	switch {
	case errors.Is(cause, errRunLimit):
		limit = backend.Errorf(comfy.Timeout, "the job ran longer than its limit of %s; raise timeout_seconds, or make the workflow smaller", in.Placement.RunTimeout)
	case errors.Is(cause, errStartLimit):
		limit = backend.Errorf(comfy.BackendUnavailable, "the job waited for a GPU longer than its limit of %s", in.Placement.StartTimeout)
	case temporal.IsCanceledError(cause):
	default:
		closed, err := a.o.Closed(context.WithoutCancel(ctx), in.Job.execution())
		if err != nil || !closed {
			rec.last()
			return againIn(handOver, &backend.Error{Code: comfy.BackendLost, Message: "the worker that carried the job has stopped", Cause: cause})
		}
		if h := a.known(ctx, b, rec, in); h != nil {
			_ = a.halt(ctx, b, *h, cancelTimeout) // nobody is left to be told
		}
		return fmt.Errorf("the job is closed: %w", cause)
	}
	e := Ending{Ran: rec.ran()}
	if h := a.known(ctx, b, rec, in); h != nil && a.halt(ctx, b, *h, cancelTimeout) != nil {
		e.Unstopped = h
	}
	if limit == nil {
		return e.canceled()
	}
	return e.over(limit)
}

// known is the handle of the prompt, as far as there may be one. An attempt that still looks for what an earlier one has
// posted knows its ID alone.
func (a *Activities) known(ctx context.Context, b backend.Backend, rec *recorder, in PromptInput) *backend.Handle {
	if h := rec.handle(); h != nil || firstAttempt(ctx, in.Job) {
		return h
	}
	h := bare(b, in)
	return &h
}

// bare is a handle that names no server: all of the pool are asked.
func bare(b backend.Backend, in PromptInput) backend.Handle {
	return backend.Handle{Pool: b.Pool().Name, PromptID: PromptID(in.Job, in.Submission), JobID: in.Job.ID, Submission: in.Submission}
}

// firstAttempt tells whether no attempt before this one can have posted the prompt: neither in this run nor in one that was reset.
func firstAttempt(ctx context.Context, job Job) bool {
	info := activity.GetInfo(ctx)
	return info.Attempt == 1 && info.WorkflowExecution.RunID == job.RunID
}

// halt stops a prompt, whatever has become of ctx. It fails where the prompt could not be stopped and its pool is metered,
// or another worker may be able to.
func (a *Activities) halt(ctx context.Context, b backend.Backend, h backend.Handle, limit time.Duration) error {
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer done()
	err := b.Cancel(ctx, h)
	if err == nil {
		return nil
	}
	log := logs.In(ctx, a.o.Log).WithError(err).WithField(logs.CallID, h.JobID)
	if handsBack(ctx, err) {
		return err
	}
	if !b.Pool().Metered {
		log.Warn("the prompt could not be stopped in time; what it makes is thrown away")
		return nil
	}
	log.Warn("the prompt could not be stopped in time; the job tries again before it ends")
	return err
}

// Stop stops a submission whose Prompt activity has ended without doing so: canceled between two attempts, or timed
// out with its worker away. It runs beside the pool's prompt queue, whose slots may all be taken.
func (a *Activities) Stop(ctx context.Context, in PromptInput) error {
	b := a.backend(in.Placement.Pool.Name)
	if b == nil {
		return again(backend.Errorf(comfy.BackendUnavailable, "this worker does not serve the pool %q", in.Placement.Pool.Name))
	}
	h := bare(b, in)
	if in.Earlier != nil && in.Earlier.Handle != nil {
		h = *in.Earlier.Handle
	}
	// Longer than elsewhere: a prompt whose call is not known has to be looked for, perhaps by a container that must start.
	if err := a.halt(ctx, b, h, stopTimeout); err != nil {
		return again(err)
	}
	a.janitor.later(cleanup{backend: b, handle: h, workflow: in.Job.execution(), about: logs.Of(ctx)})
	return nil
}
