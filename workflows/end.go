package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/comfy"
)

// maxPause is the longest pause between two submissions.
const maxPause = 30 * time.Second

// heartbeatTimeout is how soon a worker's death is noticed. Activities heartbeat each second.
const heartbeatTimeout = 5 * time.Second

var (
	attrBackend   = temporal.NewSearchAttributeKeyKeyword(comfy.AttrBackend)
	attrErrorCode = temporal.NewSearchAttributeKeyKeyword(comfy.AttrErrorCode)
)

// again decides whether a submission that failed is followed by another: nil for yes, the job's failure for no.
func (j *job) again(ctx workflow.Context, err error) error {
	f := failureOf(err)
	j.restarts += f.Restarts
	if ctx.Err() != nil || !f.Again {
		return err
	}
	if f.Ran || f.Code == comfy.OutputLost {
		j.runs++
	}
	if f.Code == comfy.BackendLost || f.Code == comfy.BackendUnavailable {
		j.Avoid = j.status.Backend
	}
	j.fresh = j.fresh || f.Code == comfy.OutputLost // what the cache would list is what could not be fetched
	if j.runs >= maxRuns || j.submission >= maxSubmissions || (f.Code == comfy.OutputLost && j.runs > 1) {
		return err
	}
	workflow.GetLogger(ctx).Warn("the submission was lost, the job goes on with another", "submission", j.submission, "reason", f.Message)
	j.note(f.Message)
	// A backend that refuses at once must not be asked in a tight loop.
	pause := min(500*time.Millisecond<<(j.submission-1), maxPause)
	return workflow.NewTimerWithOptions(ctx, pause, workflow.TimerOptions{Summary: fmt.Sprintf("pause before submission %d", j.submission+1)}).Get(ctx, nil)
}

// metrics tell where the job's time went.
func (j *job) metrics(ctx workflow.Context) comfy.Metrics {
	m := comfy.Metrics{TotalMS: workflow.Now(ctx).Sub(j.created).Milliseconds(), ExecutionMS: j.ran.Milliseconds(), GPUSeconds: j.ran.Seconds()}
	if out := j.made; out != nil {
		m.CollectMS, m.ColdStartMS, m.GPU = out.CollectMS, out.ColdStartMS, out.GPU
	}
	if m.ColdStartMS == 0 && j.coldStart > time.Second {
		m.ColdStartMS = j.coldStart.Milliseconds() // below, it is the step's own cost
	}
	m.QueueMS = max(m.TotalMS-m.CollectMS-m.ExecutionMS-m.ColdStartMS, 0)
	return m
}

// result is the job's result.
func (j *job) result(ctx workflow.Context, place *activities.Placement) *comfy.Result {
	c := j.made.Collected
	images := c.Images
	if images == nil {
		images = []comfy.Output{}
	}
	return &comfy.Result{
		Images: images, Files: c.Files, Texts: c.Texts, Cached: j.made.Cached,
		Attempts: j.attempts(), Backend: place.Pool.Name, Metrics: j.metrics(ctx),
	}
}

// end turns what went wrong into the error with which the workflow closes.
func (j *job) end(ctx workflow.Context, err error) error {
	f := failureOf(err).Failure
	f.Attempts, f.Backend, f.Metrics = j.attempts(), j.status.Backend, j.metrics(ctx)
	canceled := ctx.Err() != nil
	if canceled {
		f = comfy.Failure{Code: comfy.Canceled, Message: "the job was canceled", Attempts: f.Attempts, Backend: f.Backend, Metrics: f.Metrics}
	}
	j.countAttempts(ctx)
	if canceled {
		j.show(ctx, "canceled", f.Message)
	} else {
		j.show(ctx, "failed", fmt.Sprintf("`%s`: %s", f.Code, comfy.Literal(f.Message, maxReason)))
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, attrErrorCode.ValueSet(string(f.Code))); err != nil {
		workflow.GetLogger(ctx).Error("the error code is missing in the search attributes", "error", err)
	}
	if canceled {
		return temporal.NewCanceledError(f)
	}
	return temporal.NewApplicationErrorWithOptions(f.Message, string(f.Code), temporal.ApplicationErrorOptions{
		NonRetryable: !f.Code.Retryable(), Details: []any{f}, // for a parent's retry policy: the API gives its jobs none
	})
}

// failure is one that the workflow finds itself.
func failure(code comfy.Code, format string, args ...any) error {
	f := activities.Failure{Failure: comfy.Failure{Code: code, Message: fmt.Sprintf(format, args...)}}
	return temporal.NewApplicationErrorWithOptions(f.Message, string(code), temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{f},
	})
}

// late words a timeout of Temporal's: by what the last attempt said, where that tells a reason, else by f. Another error
// stays as it is.
func late(err error, f comfy.Failure) error {
	var timeout *temporal.TimeoutError
	if !errors.As(err, &timeout) {
		return err
	}
	last := activities.Failure{Failure: f, Again: f.Code == comfy.OutputLost}
	var app *temporal.ApplicationError
	var said activities.Failure
	if errors.As(timeout.Unwrap(), &app) && app.HasDetails() && app.Details(&said) == nil {
		switch {
		case said.Code == "" || said.Code == comfy.Internal || said.Code == comfy.BackendLost:
		case f.Code == comfy.Timeout: // it ran: what it waited for before does not matter any more
		default:
			last = said
			last.Message = "given up: " + said.Message
		}
	}
	return temporal.NewApplicationErrorWithOptions(last.Message, string(last.Code), temporal.ApplicationErrorOptions{
		NonRetryable: true, Cause: err, Details: []any{last},
	})
}

// lastWord is the heartbeat that a timed out Prompt has left, or the one before.
func lastWord(timeout *temporal.TimeoutError, before *activities.Heartbeat) *activities.Heartbeat {
	var hb activities.Heartbeat
	if !timeout.HasLastHeartbeatDetails() || timeout.LastHeartbeatDetails(&hb) != nil || hb.Handle == nil {
		return before
	}
	return &hb
}

// onlyAway tells a prompt that waited too long for its next attempt, its worker being away, from one that never began.
// Temporal's time to start counts for every attempt anew.
func onlyAway(timeout *temporal.TimeoutError, last *activities.Heartbeat) bool {
	return last != nil && timeout.TimeoutType() == enums.TIMEOUT_TYPE_SCHEDULE_TO_START
}

// failureOf reads an activity's error.
func failureOf(err error) activities.Failure {
	var f activities.Failure
	var app *temporal.ApplicationError
	if errors.As(err, &app) && app.HasDetails() && app.Details(&f) == nil && f.Code != "" {
		return f
	}
	return activities.Failure{Failure: comfy.Failure{Code: comfy.Internal, Message: "comfyd failed; Temporal has the reason in the job's history"}}
}
