package activities

import (
	"fmt"
	"time"

	"github.com/comfyd/comfyd/internal/visibility"
)

// listLag is how late Temporal's lists may be: a sweep asks for what ended so long before the last one began, once more.
const listLag = 10 * time.Minute

// unsent has the receivers told of jobs that Temporal itself has ended since, because an operator has terminated them or no
// worker was there at their last time limit: their workflows could not. No sweep may have been made for days then.
func (w *sweep) unsent(since time.Time) error {
	if oldest := w.now.Add(-w.retention); since.Before(oldest) {
		since = oldest
	}
	query := visibility.Jobs() + " AND ExecutionStatus IN ('Terminated', 'TimedOut') AND CloseTime > " +
		visibility.Quote(since.Add(-listLag).UTC().Format(time.RFC3339))
	for e, err := range visibility.Executions(w.ctx, w.o.Temporal, query) {
		if err != nil {
			return fmt.Errorf("listing jobs that Temporal has ended: %w", err)
		}
		deleted, err := w.remover.Deleted(w.ctx, e.GetWorkflowId(), e.GetRunId())
		if err != nil {
			return err
		}
		if deleted {
			continue
		}
		if err := w.o.Tell(w.ctx, e.GetWorkflowId(), e.GetRunId()); err != nil {
			return err
		}
	}
	return nil
}
