package activities

import (
	"errors"
	"maps"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/logs"
)

// Failure is what an activity's application error carries as its details; the error's type is the Code.
type Failure struct {
	comfy.Failure
	// Again says that another submission may do better.
	Again bool `json:"again,omitempty"`
	// Ran says that a prompt had started before it was lost, so that the next one counts as a retry.
	Ran bool `json:"ran,omitempty"`
	// Restarts is how often the backend had run the prompt beyond its submission.
	Restarts int `json:"restarts,omitempty"`
	// RanMS is for how long the prompt was seen to run.
	RanMS int64 `json:"ran_ms,omitempty"`
	// Unstopped is the handle of a prompt that may run on, because it could not be stopped in time.
	Unstopped *backend.Handle `json:"unstopped,omitempty"`
}

// fail ends the activity for good: the workflow decides what follows.
func fail(err error) error {
	return appError(failureOf(err), err, temporal.ApplicationErrorOptions{NonRetryable: true})
}

// again lets Temporal run the activity again by its retry policy.
func again(err error) error { return againIn(0, err) }

// againIn is again, not before a time.
func againIn(d time.Duration, err error) error {
	return appError(failureOf(err), err, temporal.ApplicationErrorOptions{
		NextRetryDelay: d,
		Category:       temporal.ApplicationErrorCategoryBenign, // expected while waiting: no error lines, no error metrics
	})
}

func appError(f Failure, err error, o temporal.ApplicationErrorOptions) error {
	o.Cause, o.Details = causeOf(err), []any{f}
	return temporal.NewApplicationErrorWithOptions(f.Message, string(f.Code), o)
}

// causeOf is what a person finds beneath a failure in Temporal's history: what lies behind a backend's words, without
// credentials; nil where there is no more.
func causeOf(err error) error {
	var b *backend.Error
	for errors.As(err, &b) {
		err = b.Cause
	}
	if err == nil || errors.Is(err, errWait) {
		return nil
	}
	return errors.New(logs.Clean(err.Error()))
}

func failureOf(err error) Failure {
	var b *backend.Error
	if !errors.As(err, &b) {
		return Failure{Failure: comfy.Failure{Code: comfy.Internal, Message: "comfyd failed; the worker's log has the reason under the job's ID"}}
	}
	return Failure{
		Failure: comfy.Failure{Code: b.Code, Message: b.Message, NodeID: b.NodeID, NodeErrors: first(b.NodeErrors)},
		Again: !b.Final && (b.Code == comfy.BackendLost || b.Code == comfy.BackendUnavailable ||
			b.Code == comfy.OutputLost || b.Code == comfy.Timeout),
		Ran: b.Ran, Restarts: b.Restarts,
	}
}

// first keeps the first node errors in natural order: what of a refusal travels in the history.
func first(all comfy.NodeErrors) comfy.NodeErrors {
	if len(all) <= comfy.MaxReported {
		return all
	}
	some := comfy.NodeErrors{}
	for _, id := range slices.SortedFunc(maps.Keys(all), comfy.CompareIDs)[:comfy.MaxReported] {
		some[id] = all[id]
	}
	return some
}
