package visibility

import (
	"context"
	"iter"

	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"github.com/comfyd/comfyd/comfy"
)

// Lister is what [Executions] needs of Temporal; client.Client satisfies it.
type Lister interface {
	ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error)
}

// Executions are all that a query lists, page by page. An error of Temporal ends them.
func Executions(ctx context.Context, c Lister, query string) iter.Seq2[*common.WorkflowExecution, error] {
	return func(yield func(*common.WorkflowExecution, error) bool) {
		var page []byte
		for {
			list, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, NextPageToken: page})
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range list.GetExecutions() {
				if !yield(e.GetExecution(), nil) {
					return
				}
			}
			if page = list.GetNextPageToken(); len(page) == 0 {
				return
			}
		}
	}
}

// Submission is the start memo of a job. Jobs that others start have none, and that of a child counts for nothing: its
// parent may write there what it likes. One that cannot be read is an error rather than none: the job is somebody's.
func Submission(info *workflow.WorkflowExecutionInfo, memos converter.DataConverter) (sub comfy.Submission, submitted bool, err error) {
	payload, ok := info.GetMemo().GetFields()[comfy.MemoSubmission]
	if !ok || info.GetParentExecution() != nil {
		return sub, false, nil
	}
	return sub, true, memos.FromPayload(payload, &sub)
}
