package activities

import (
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/backend"
)

// stoppedByUs stands in the details of a canceled Prompt that has stopped its prompt. Temporal itself cancels one
// that no worker is at, and then nobody has.
const stoppedByUs = "stopped"

// Ending is what a Prompt that has failed says of its prompt.
type Ending struct {
	// Stopped is set by a canceled Prompt that has stopped its prompt itself.
	Stopped bool
	// Unstopped is the handle of a prompt that may run on: the workflow has it stopped by Stop. Nil for none.
	Unstopped *backend.Handle
	// Ran is for how long the prompt was seen to run.
	Ran time.Duration
}

// EndingOf reads it from the error of a Prompt; zero where that tells nothing.
func EndingOf(err error) Ending {
	var canceled *temporal.CanceledError
	var app *temporal.ApplicationError
	switch {
	case errors.As(err, &canceled):
		var by string
		var h backend.Handle
		var ms int64
		if !canceled.HasDetails() || canceled.Details(&by, &h, &ms) != nil {
			return Ending{}
		}
		e := Ending{Stopped: by == stoppedByUs, Ran: time.Duration(ms) * time.Millisecond}
		if h.PromptID != "" {
			e.Unstopped = &h
		}
		return e
	case errors.As(err, &app):
		var f Failure
		if !app.HasDetails() || app.Details(&f) != nil {
			return Ending{}
		}
		return Ending{Unstopped: f.Unstopped, Ran: time.Duration(f.RanMS) * time.Millisecond}
	}
	return Ending{}
}

// canceled is the error of a Prompt that was canceled.
func (e Ending) canceled() error {
	if e.Unstopped != nil {
		return temporal.NewCanceledError("", *e.Unstopped, e.Ran.Milliseconds())
	}
	return temporal.NewCanceledError(stoppedByUs, backend.Handle{}, e.Ran.Milliseconds())
}

// over is the error of a Prompt that has met a limit of its job: another submission would meet the same.
func (e Ending) over(limit *backend.Error) error {
	f := failureOf(limit)
	f.Again, f.RanMS, f.Unstopped = false, e.Ran.Milliseconds(), e.Unstopped
	return appError(f, limit, temporal.ApplicationErrorOptions{NonRetryable: true})
}
