package worker

import (
	"testing"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/mocks"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/codec"
)

func described(info *workflowpb.WorkflowExecutionInfo) *workflowservice.DescribeWorkflowExecutionResponse {
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: info}
}

// TestClosed: a run that was reset is the same job, and one that a retry policy has started is another.
func TestClosed(t *testing.T) {
	const running, failed = enums.WORKFLOW_EXECUTION_STATUS_RUNNING, enums.WORKFLOW_EXECUTION_STATUS_FAILED
	for name, c := range map[string]struct {
		status        enums.WorkflowExecutionStatus
		run, original string // of the ID's current run
		err           error
		closed        bool
	}{
		"it runs":                     {status: running, run: "run-1", original: "run-1"},
		"it has ended":                {status: failed, run: "run-1", original: "run-1", closed: true},
		"it was reset":                {status: running, run: "run-2", original: "run-1"},
		"it was reset, and has ended": {status: failed, run: "run-2", original: "run-1", closed: true},
		"it is tried again":           {status: running, run: "run-2", original: "run-2", closed: true},
		"it is forgotten":             {err: serviceerror.NewNotFound("gone"), closed: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mocks.Client{}
			m.On("DescribeWorkflowExecution", mock.Anything, "job", "").Return(described(&workflowpb.WorkflowExecutionInfo{
				Status: c.status, FirstRunId: "run-1", Execution: &commonpb.WorkflowExecution{RunId: c.run},
			}), c.err)
			it := &mocks.HistoryEventIterator{}
			it.On("Next").Return(&history.HistoryEvent{Attributes: &history.HistoryEvent_WorkflowExecutionStartedEventAttributes{
				WorkflowExecutionStartedEventAttributes: &history.WorkflowExecutionStartedEventAttributes{OriginalExecutionRunId: c.original},
			}}, nil)
			m.On("GetWorkflowHistory", mock.Anything, "job", c.run, false, mock.Anything).Return(it)
			got, err := closed(m)(t.Context(), activities.Execution{WorkflowID: "job", OriginalRunID: "run-1"})
			require.NoError(t, err)
			require.Equal(t, c.closed, got)
		})
	}
	m := &mocks.Client{}
	m.On("DescribeWorkflowExecution", mock.Anything, "job", "").Return(nil, serviceerror.NewUnavailable("away"))
	_, err := closed(m)(t.Context(), activities.Execution{WorkflowID: "job"})
	require.Error(t, err, "in doubt nothing is stopped")
}

func TestOwner(t *testing.T) {
	keys, err := codec.New([]codec.Key{{ID: "a", Secret: make([]byte, 32)}}, false)
	require.NoError(t, err)
	sealed := keys.Converter() // memos are encrypted where all else is
	memo := func(tenant string) *commonpb.Memo {
		p, err := sealed.ToPayload(comfy.Submission{Tenant: tenant})
		require.NoError(t, err)
		return &commonpb.Memo{Fields: map[string]*commonpb.Payload{comfy.MemoSubmission: p}}
	}
	job := &commonpb.WorkflowType{Name: comfy.WorkflowName}
	for name, c := range map[string]struct {
		info   *workflowpb.WorkflowExecutionInfo
		err    error
		tenant string
		found  bool
	}{
		"the API's":        {info: &workflowpb.WorkflowExecutionInfo{Type: job, Memo: memo("alice")}, tenant: "alice", found: true},
		"a child":          {info: &workflowpb.WorkflowExecutionInfo{Type: job, ParentExecution: &commonpb.WorkflowExecution{}}, found: true},
		"a child's claim":  {info: &workflowpb.WorkflowExecutionInfo{Type: job, Memo: memo("alice"), ParentExecution: &commonpb.WorkflowExecution{}}, found: true},
		"a broken memo":    {info: &workflowpb.WorkflowExecutionInfo{Type: job, Memo: memo("")}},
		"another workflow": {info: &workflowpb.WorkflowExecutionInfo{Type: &commonpb.WorkflowType{Name: "Other"}}},
		"forgotten":        {err: serviceerror.NewNotFound("gone")},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mocks.Client{}
			m.On("DescribeWorkflowExecution", mock.Anything, "job", "").Return(described(c.info), c.err)
			tenant, found, err := owner(m, sealed)(t.Context(), "job")
			require.NoError(t, err)
			require.Equal(t, c.tenant, tenant)
			require.Equal(t, c.found, found)
		})
	}
	m := &mocks.Client{}
	m.On("DescribeWorkflowExecution", mock.Anything, "job", "").Return(described(&workflowpb.WorkflowExecutionInfo{Type: job, Memo: memo("alice")}), nil)
	_, _, err = owner(m, converter.GetDefaultDataConverter())(t.Context(), "job")
	require.Error(t, err, "a worker without the key does not know")
}

func TestNexusStart(t *testing.T) {
	limits := activities.Limits{Start: 10, Run: 20}
	o := nexusStart(comfy.Request{}, "r", limits)
	require.Equal(t, "nexus-r", o.ID, "a call that is repeated starts no second job")
	require.Equal(t, 30+nexusGrace, o.WorkflowExecutionTimeout)
	o = nexusStart(comfy.Request{TimeoutSeconds: 1 << 40, StartTimeoutSeconds: 1}, "r", limits)
	require.Less(t, o.WorkflowExecutionTimeout.Hours(), 26.0)
	o = nexusStart(comfy.Request{StartTimeoutSeconds: 1 << 40}, "r", limits)
	require.Positive(t, o.WorkflowExecutionTimeout, "the job says what is wrong with it")
}
