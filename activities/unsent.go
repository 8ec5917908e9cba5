package activities

import (
	"context"
	"fmt"
	"time"

	"github.com/comfyd/comfyd/internal/visibility"
)

// listLag is how late Temporal's lists may be: a sweep asks for what ended so long before the last one began, once more.
const listLag = 10 * time.Minute

// unsent has the receivers told of jobs that Temporal itself has ended since, because an operator has terminated them or no
// worker was there at their last time limit: their workflows could not. No sweep may have been made for days then.
func (w *sweep) unsent(since time.Time) error {
	since = since.Add(-listLag)
	if oldest := w.now.Add(-w.retention); since.Before(oldest) {
		since = oldest
	}
	query := visibility.Jobs() + " AND ExecutionStatus IN ('Terminated', 'TimedOut') AND CloseTime > " +
		visibility.Quote(since.UTC().Format(time.RFC3339))
	var failed error // of one: the others are told all the same
	for e, err := range visibility.Executions(w.ctx, w.o.Temporal, query) {
		if err != nil {
			return fmt.Errorf("listing jobs that Temporal has ended: %w", err)
		}
		deleted, err := w.remover.Deleted(w.ctx, e.GetWorkflowId(), e.GetRunId())
		if err == nil && !deleted {
			err = w.o.Tell(w.ctx, e.GetWorkflowId(), e.GetRunId())
		}
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if err != nil {
			failed = err
		}
	}
	return failed
}
