package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

func TestMain(m *testing.M) {
	// The first ends up to ten seconds after its server, the second is fasthttp's clock.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// fakeRun is a workflow execution of the Temporal double.
type fakeRun struct {
	info     *workflowpb.WorkflowExecutionInfo
	extended *workflowpb.WorkflowExecutionExtendedInfo
	pending  []*workflowpb.PendingActivityInfo
	request  comfy.Request
	webhook  comfy.Webhook             // the input of a webhook's workflow
	events   []*historypb.HistoryEvent // in place of a start with the request
	options  client.StartWorkflowOptions
	own      *comfy.Status // the answer of the query
	result   comfy.Result
	failure  error
	ended    chan struct{}
}

func (r *fakeRun) end(status enums.WorkflowExecutionStatus) {
	r.info.Status = status
	r.info.CloseTime = timestamppb.Now()
	close(r.ended)
}

// fakeTemporal answers as Temporal was seen to answer, from memory.
type fakeTemporal struct {
	mu       sync.Mutex
	runs     map[string]*fakeRun
	err      error // of every call
	startErr error
	lands    bool  // a start that fails with startErr has happened all the same
	countErr error // of CountWorkflow
	// failWith is the error of starts after so many.
	failAfter int
	failWith  error
	// of DescribeWorkflowExecution
	describeErr error
	counts      atomic.Int64
	holdCount   chan struct{} // CountWorkflow waits for it, where it is set
	hold        chan struct{} // Describe waits for it, where it is set
	mute        bool          // there is no worker that answers a query
	describes   atomic.Int64
	queries     atomic.Int64
	gets        atomic.Int64
	deadlines   atomic.Int64 // of gets

	lists     func(*workflowservice.ListWorkflowExecutionsRequest) *workflowservice.ListWorkflowExecutionsResponse
	queried   []*workflowservice.ListWorkflowExecutionsRequest
	lingers   bool // it goes on to know what was deleted
	deleteErr error
}

func (f *fakeTemporal) ExecuteWorkflow(_ context.Context, o client.StartWorkflowOptions, name any, args ...any) (client.WorkflowRun, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(f.err, f.startErr); err != nil && !f.lands {
		return nil, err
	}
	if f.failWith != nil {
		if f.failAfter == 0 {
			return nil, f.failWith
		}
		f.failAfter--
	}
	if _, ok := f.runs[o.ID]; ok && o.WorkflowIDConflictPolicy != enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING {
		return nil, serviceerror.NewWorkflowExecutionAlreadyStarted("already started", "", "run")
	}
	memo := map[string]*commonpb.Payload{}
	for k, v := range o.Memo {
		p, err := converter.GetDefaultDataConverter().ToPayload(v)
		if err != nil {
			return nil, err
		}
		memo[k] = p
	}
	// Through JSON, as Temporal would carry it.
	raw, err := json.Marshal(args[0])
	if err != nil {
		return nil, err
	}
	run := newRun(o.ID, name.(string))
	run.info.Execution.RunId = uuid.NewString()
	run.info.Memo = &commonpb.Memo{Fields: memo}
	run.options = o
	f.runs[o.ID] = run
	return &fakeHandle{f: f, id: o.ID, run: run.info.Execution.RunId}, errors.Join(json.Unmarshal(raw, &run.request), json.Unmarshal(raw, &run.webhook), f.startErr)
}

func (f *fakeTemporal) all() []*fakeRun {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.runs))
}

// holdCounts makes counts wait for a channel from now on; for none, where it is nil.
func (f *fakeTemporal) holdCounts(hold chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holdCount = hold
}

// CountWorkflow counts the open runs, of the tenant that the query names where it names one.
func (f *fakeTemporal) CountWorkflow(ctx context.Context, q *workflowservice.CountWorkflowExecutionsRequest) (*workflowservice.CountWorkflowExecutionsResponse, error) {
	f.counts.Add(1)
	f.mu.Lock()
	hold := f.holdCount
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(f.err, f.countErr); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(q.Query, "WorkflowType = 'ComfyUIWorkflow' AND ExecutionStatus = 'Running'") {
		return nil, serviceerror.NewInvalidArgument(q.Query)
	}
	n := int64(0)
	for _, r := range f.runs {
		tenant, _ := r.options.TypedSearchAttributes.GetKeyword(temporal.NewSearchAttributeKeyKeyword(comfy.AttrTenant))
		of := strings.HasSuffix(q.Query, " AND ComfyTenant = '"+tenant+"'") || !strings.Contains(q.Query, "ComfyTenant")
		if of && r.info.Status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			n++
		}
	}
	return &workflowservice.CountWorkflowExecutionsResponse{Count: n}, nil
}

func newRun(id, name string) *fakeRun {
	return &fakeRun{
		info: &workflowpb.WorkflowExecutionInfo{
			Execution: &commonpb.WorkflowExecution{WorkflowId: id, RunId: "run-" + id},
			Type:      &commonpb.WorkflowType{Name: name},
			Status:    enums.WORKFLOW_EXECUTION_STATUS_RUNNING,
			StartTime: timestamppb.Now(),
		},
		extended: &workflowpb.WorkflowExecutionExtendedInfo{},
		ended:    make(chan struct{}),
	}
}

func (f *fakeTemporal) get(id string) (*fakeRun, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	run, ok := f.runs[id]
	if !ok {
		return nil, serviceerror.NewNotFound("workflow not found for ID: " + id)
	}
	return run, nil
}

// set adds a run, or takes one away where it is nil.
func (f *fakeTemporal) set(id string, run *fakeRun) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs[id] = run
	if run == nil {
		delete(f.runs, id)
	}
}

func (f *fakeTemporal) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeTemporal) GetWorkflow(_ context.Context, id, _ string) client.WorkflowRun {
	return &fakeHandle{f: f, id: id}
}

func (f *fakeTemporal) CancelWorkflow(_ context.Context, id, runID string) error {
	run, err := f.get(id)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !visibility.IsOpen(run.info.Status) || runID != "" && runID != run.info.Execution.RunId {
		return serviceerror.NewNotFound("workflow execution already completed")
	}
	run.extended.CancelRequested = true
	return nil
}

func (f *fakeTemporal) DescribeWorkflowExecution(_ context.Context, id, _ string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	f.describes.Add(1)
	if f.hold != nil {
		<-f.hold
	}
	run, err := f.get(id)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.describeErr != nil {
		return nil, f.describeErr
	}
	described := &workflowservice.DescribeWorkflowExecutionResponse{
		WorkflowExecutionInfo: run.info, WorkflowExtendedInfo: run.extended, PendingActivities: run.pending,
	}
	return proto.Clone(described).(*workflowservice.DescribeWorkflowExecutionResponse), nil
}

func (f *fakeTemporal) QueryWorkflowWithOptions(ctx context.Context, q *client.QueryWorkflowWithOptionsRequest) (*client.QueryWorkflowWithOptionsResponse, error) {
	f.queries.Add(1)
	run, err := f.get(q.WorkflowID)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	own, mute := run.own, f.mute
	f.mu.Unlock()
	if mute {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if own == nil {
		return nil, serviceerror.NewQueryFailed("unknown")
	}
	payloads, err := converter.GetDefaultDataConverter().ToPayloads(own)
	if err != nil {
		return nil, err
	}
	return &client.QueryWorkflowWithOptionsResponse{QueryResult: client.NewValue(payloads)}, nil
}

// ListWorkflow lists in one page what the test says, and notes what it was asked.
func (f *fakeTemporal) ListWorkflow(_ context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queried = append(f.queried, r)
	if f.err != nil {
		return nil, f.err
	}
	if f.lists == nil {
		return &workflowservice.ListWorkflowExecutionsResponse{}, nil
	}
	return f.lists(r), nil
}

func (f *fakeTemporal) WorkflowService() workflowservice.WorkflowServiceClient {
	return fakeService{f: f}
}

// fakeService is the part of Temporal that its Go client has no methods for.
type fakeService struct {
	workflowservice.WorkflowServiceClient
	f *fakeTemporal
}

// DeleteWorkflowExecution forgets a run at once, unless the double lingers.
func (s fakeService) DeleteWorkflowExecution(_ context.Context, r *workflowservice.DeleteWorkflowExecutionRequest, _ ...grpc.CallOption) (*workflowservice.DeleteWorkflowExecutionResponse, error) {
	id := r.GetWorkflowExecution().GetWorkflowId()
	if _, err := s.f.get(id); err != nil {
		return nil, err
	}
	if err := s.f.deleteErr; err != nil {
		return nil, err
	}
	if !s.f.lingers {
		s.f.set(id, nil)
	}
	return &workflowservice.DeleteWorkflowExecutionResponse{}, nil
}

func (s fakeService) GetWorkflowExecutionHistory(_ context.Context, r *workflowservice.GetWorkflowExecutionHistoryRequest, _ ...grpc.CallOption) (*workflowservice.GetWorkflowExecutionHistoryResponse, error) {
	run, err := s.f.get(r.GetExecution().GetWorkflowId())
	if err != nil {
		return nil, err
	}
	if run.events != nil {
		return &workflowservice.GetWorkflowExecutionHistoryResponse{History: &historypb.History{Events: run.events}}, nil
	}
	input, err := converter.GetDefaultDataConverter().ToPayloads(run.request)
	return &workflowservice.GetWorkflowExecutionHistoryResponse{History: &historypb.History{Events: []*historypb.HistoryEvent{{
		Attributes: &historypb.HistoryEvent_WorkflowExecutionStartedEventAttributes{
			WorkflowExecutionStartedEventAttributes: &historypb.WorkflowExecutionStartedEventAttributes{Input: input},
		},
	}}}}, err
}

func (f *fakeTemporal) CheckHealth(context.Context, *client.CheckHealthRequest) (*client.CheckHealthResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &client.CheckHealthResponse{}, f.err
}

type fakeHandle struct {
	client.WorkflowRun
	f       *fakeTemporal
	id, run string
}

func (h *fakeHandle) GetID() string    { return h.id }
func (h *fakeHandle) GetRunID() string { return h.run }

func (h *fakeHandle) Get(ctx context.Context, value any) error {
	h.f.gets.Add(1)
	if _, bounded := ctx.Deadline(); bounded {
		h.f.deadlines.Add(1)
	}
	run, err := h.f.get(h.id)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-run.ended:
	}
	if run.failure != nil {
		return run.failure
	}
	if result, ok := value.(*comfy.Result); ok {
		*result = run.result
	}
	return nil
}

// ended returns the error with which the SDK reports the end of a workflow that returned err.
func endError(t *testing.T, err error) error {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	env := suite.NewTestWorkflowEnvironment()
	env.ExecuteWorkflow(func(workflow.Context) error { return err })
	require.Error(t, env.GetWorkflowError())
	return env.GetWorkflowError()
}

type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
