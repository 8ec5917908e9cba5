package backend

import (
	"context"
	"errors"
	"fmt"

	"github.com/comfyd/comfyd/comfy"
)

// Error is what every method of a Backend fails with.
type Error struct {
	Code comfy.Code
	// Message is for the person who sent the job: no traceback, no path of a server.
	Message    string
	NodeID     string
	NodeErrors comfy.NodeErrors
	// Ran says that the prompt had started when it was lost, so that the retry counts against it.
	Ran bool
	// Restarts is how often the backend had begun the prompt anew by itself before it failed.
	Restarts int
	// Final says that another submission would end the same, whatever the code means elsewhere.
	Final bool
	// Unsent says that the prompt was surely not handed over: its handle leads nowhere.
	Unsent bool
	// Cause is for the log.
	Cause error
}

// ErrNotHere, as the cause of an Error, says that the prompt's server is not one of this worker's. Another worker of the
// pool may have it.
var ErrNotHere = errors.New("the server is not one of this worker's")

// Errorf makes an Error without a cause.
func Errorf(code comfy.Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Detached is the error of a Run whose context ended. Its code says nothing about the prompt, which is left alone.
func Detached(ctx context.Context) *Error {
	return &Error{Code: comfy.Internal, Message: "the call was given up before the prompt ended", Cause: ctx.Err()}
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.Cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

func (e *Error) Unwrap() error { return e.Cause }
