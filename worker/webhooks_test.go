package worker

import (
	"context"
	"testing"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/mocks"

	"github.com/comfyd/comfyd/comfy"
)

// TestTell: an ID may have had a run before, whose message is not that of this one.
func TestTell(t *testing.T) {
	const address = "https://example.com/hook"
	for name, c := range map[string]struct {
		url, earlier string // the run that the ID's webhook is about
		starts       int
	}{
		"nobody is told":     {},
		"it was not started": {url: address, starts: 1},
		"it was started":     {url: address, earlier: "run-1", starts: 1},
		"of a run before":    {url: address, earlier: "run-0", starts: 2},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mocks.Client{}
			began := func(id, run string, input any) {
				payloads, err := converter.GetDefaultDataConverter().ToPayloads(input)
				require.NoError(t, err)
				it := &mocks.HistoryEventIterator{}
				it.On("Next").Return(&history.HistoryEvent{Attributes: &history.HistoryEvent_WorkflowExecutionStartedEventAttributes{
					WorkflowExecutionStartedEventAttributes: &history.WorkflowExecutionStartedEventAttributes{Input: payloads},
				}}, nil)
				m.On("GetWorkflowHistory", mock.Anything, id, run, false, mock.Anything).Return(it)
			}
			began("job", "run-1", comfy.Request{WebhookURL: c.url})
			began("webhook/job", "", comfy.Webhook{RunID: c.earlier})
			m.On("DescribeWorkflowExecution", mock.Anything, "job", "").Return(described(&workflowpb.WorkflowExecutionInfo{Execution: &commonpb.WorkflowExecution{RunId: "run-1"}}), nil)
			starts := 0
			m.On("ExecuteWorkflow", mock.Anything, mock.Anything, comfy.WebhookWorkflowName, mock.Anything).Return(
				func(_ context.Context, o client.StartWorkflowOptions, _ any, args ...any) (client.WorkflowRun, error) {
					starts++
					require.Equal(t, comfy.Webhook{JobID: "job", RunID: "run-1", URL: address}, args[0])
					require.True(t, o.WorkflowExecutionErrorWhenAlreadyStarted, "or the SDK says that it has started one")
					if c.earlier != "" && o.WorkflowIDConflictPolicy != enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING {
						return nil, &serviceerror.WorkflowExecutionAlreadyStarted{}
					}
					return nil, nil
				})
			require.NoError(t, tell(m, converter.GetDefaultDataConverter())(t.Context(), "job", "run-1"))
			require.Equal(t, c.starts, starts)
		})
	}
}
