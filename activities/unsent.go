package activities

import (
	"fmt"
	"time"

	"github.com/comfyd/comfyd/internal/visibility"
)

// unsentFor is how long ago a job may have been ended by Temporal whose receiver is told by a sweep: some sweeps are missed.
const unsentFor = 6 * time.Hour

// unsent has the receivers told of jobs that Temporal itself has ended, because an operator has terminated them or no worker
// was there at their last time limit: their workflows could not.
func (w *sweep) unsent() error {
	query := visibility.Jobs() + " AND ExecutionStatus IN ('Terminated', 'TimedOut') AND CloseTime > " +
		visibility.Quote(w.now.Add(-unsentFor).UTC().Format(time.RFC3339))
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
