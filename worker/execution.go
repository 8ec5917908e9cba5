package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

// askTimeout bounds a question to Temporal about one job.
const askTimeout = 10 * time.Second

// closed asks Temporal whether a job has ended. One that it has forgotten has, and so has one whose ID another job has
// taken. A job that was reset runs on under another run ID, and its first event still names the original run; a run that
// a retry policy or a cron has started after it is another job.
func closed(c client.Client) func(context.Context, activities.Execution) (bool, error) {
	return func(ctx context.Context, e activities.Execution) (bool, error) {
		ctx, done := context.WithTimeout(ctx, askTimeout)
		defer done()
		d, err := c.DescribeWorkflowExecution(ctx, e.WorkflowID, "")
		var gone *serviceerror.NotFound
		if errors.As(err, &gone) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("asking Temporal whether job %s has ended: %w", e.WorkflowID, err)
		}
		info := d.GetWorkflowExecutionInfo()
		run := info.GetExecution().GetRunId()
		if open := visibility.IsOpen(info.GetStatus()); !open || run == e.OriginalRunID {
			return !open, nil
		}
		began, err := c.GetWorkflowHistory(ctx, e.WorkflowID, run, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT).Next()
		if err != nil {
			return false, fmt.Errorf("asking Temporal how the run %s of job %s began: %w", run, e.WorkflowID, err)
		}
		return began.GetWorkflowExecutionStartedEventAttributes().GetOriginalExecutionRunId() != e.OriginalRunID, nil
	}
}

// owner asks Temporal whose job it is: the memo of one that came through the API says so. Nobody's are those that other
// Temporal users have started. A memo that cannot be read is an error: the key of it may be missing here, and another worker
// may have it.
func owner(c client.Client, memos converter.DataConverter) func(context.Context, string) (string, bool, error) {
	return func(ctx context.Context, id string) (string, bool, error) {
		ctx, done := context.WithTimeout(ctx, askTimeout)
		defer done()
		d, err := c.DescribeWorkflowExecution(ctx, id, "")
		var gone *serviceerror.NotFound
		if errors.As(err, &gone) {
			return "", false, nil
		}
		if err != nil {
			return "", false, fmt.Errorf("asking Temporal whose job %s is: %w", id, err)
		}
		info := d.GetWorkflowExecutionInfo()
		if info.GetType().GetName() != comfy.WorkflowName {
			return "", false, nil
		}
		sub, submitted, err := visibility.Submission(info, memos)
		if err != nil {
			return "", false, fmt.Errorf("reading whose job %s is: %w", id, err)
		}
		return sub.Tenant, !submitted || sub.Tenant != "", nil // without a tenant nobody can say whose it is
	}
}
