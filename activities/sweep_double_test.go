package activities_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/internal/removal"
	"github.com/comfyd/comfyd/store"
)

const (
	day  = 24 * time.Hour
	hash = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881" // of "x"
)

// fakeLedger is what a sweep asks of Temporal.
type fakeLedger struct {
	namespace string
	runs      map[string]string // ID -> run
	users     []string          // parts of queries that find a job
	err       error
	asked     []string
	deleted   []string
	limits    []time.Duration // of the raw calls
}

func (f *fakeLedger) DescribeWorkflowExecution(_ context.Context, id, run string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	f.asked = append(f.asked, id)
	if f.err != nil {
		return nil, f.err
	}
	have, ok := f.runs[id]
	if !ok || run != "" && run != have {
		return nil, serviceerror.NewNotFound("workflow not found")
	}
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{
		Execution: &commonpb.WorkflowExecution{WorkflowId: id, RunId: have},
	}}, nil
}

func (f *fakeLedger) ListWorkflow(_ context.Context, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	found := &workflowservice.ListWorkflowExecutionsResponse{}
	if slices.ContainsFunc(f.users, func(part string) bool { return strings.Contains(r.Query, part) }) {
		found.Executions = []*workflowpb.WorkflowExecutionInfo{{Execution: &commonpb.WorkflowExecution{WorkflowId: "user", RunId: "run"}}}
	}
	return found, f.err
}

func (f *fakeLedger) WorkflowService() workflowservice.WorkflowServiceClient {
	return fakeService{fakeLedger: f}
}

// fakeService is the part of it that Temporal's Go client has no methods for.
type fakeService struct {
	workflowservice.WorkflowServiceClient
	fakeLedger *fakeLedger
}

func (s fakeService) DescribeNamespace(ctx context.Context, _ *workflowservice.DescribeNamespaceRequest, _ ...grpc.CallOption) (*workflowservice.DescribeNamespaceResponse, error) {
	s.fakeLedger.limits = append(s.fakeLedger.limits, limitOf(ctx))
	return &workflowservice.DescribeNamespaceResponse{
		NamespaceInfo: &namespacepb.NamespaceInfo{Id: s.fakeLedger.namespace},
		Config:        &namespacepb.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(7 * day)},
	}, nil
}

// limitOf is how long a call may take at most; a day where it has no deadline.
func limitOf(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return time.Until(deadline)
	}
	return day
}

func (s fakeService) DeleteWorkflowExecution(ctx context.Context, r *workflowservice.DeleteWorkflowExecutionRequest, _ ...grpc.CallOption) (*workflowservice.DeleteWorkflowExecutionResponse, error) {
	s.fakeLedger.limits = append(s.fakeLedger.limits, limitOf(ctx))
	s.fakeLedger.deleted = append(s.fakeLedger.deleted, r.GetWorkflowExecution().GetRunId())
	return &workflowservice.DeleteWorkflowExecutionResponse{}, s.fakeLedger.err
}

// sweeping is a store with things of many ages.
type sweeping struct {
	t      *testing.T
	store  *store.Store
	dir    string
	ledger *fakeLedger
	now    time.Time
	named  map[string]bool
	log    *logrus.Logger
	notes  *test.Hook

	told      []string // jobs whose receivers were told, with their runs
	tellErr   error
	toldUntil time.Time // by the last sweep
}

func newSweeping(t *testing.T) *sweeping {
	s := &sweeping{t: t, dir: t.TempDir(), now: time.Now(), named: map[string]bool{}, ledger: &fakeLedger{namespace: "n1", runs: map[string]string{}}}
	s.log, s.notes = test.NewNullLogger()
	var err error
	s.store, err = store.Open(t.Context(), s.dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.store.Close()) })
	require.NoError(t, removal.Claim(t.Context(), s.store, s.ledger.namespace))
	return s
}

func (s *sweeping) put(key string, age time.Duration) {
	s.t.Helper()
	_, err := s.store.Put(s.t.Context(), key, strings.NewReader("x"))
	require.NoError(s.t, err)
	at := s.now.Add(-age)
	require.NoError(s.t, os.Chtimes(filepath.Join(s.dir, filepath.FromSlash(key)), at, at))
}

func (s *sweeping) has() []string {
	s.t.Helper()
	var keys []string
	for b, err := range s.store.List(s.t.Context(), "") {
		require.NoError(s.t, err)
		if b.Key != "owner/namespace" {
			keys = append(keys, b.Key)
		}
	}
	return keys
}

// sweep runs the activity, after an attempt that has said this last.
func (s *sweeping) sweep(st removal.Store, last ...any) (activities.Swept, error) {
	s.t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quietLogger{})
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&temporalsClock{s: s}}})
	if len(last) > 0 {
		env.SetHeartbeatDetails(last[0])
	}
	sweeper := activities.NewSweeper(activities.SweepOptions{
		Temporal: s.ledger, Namespace: "default", Store: st, Start: time.Hour, Log: s.log,
		Catalogs: func(context.Context) (map[string]bool, error) { return s.named, s.ledger.err },
		Tell: func(_ context.Context, id, run string) error {
			s.told = append(s.told, id+"/"+run)
			return s.tellErr
		},
	})
	env.RegisterActivityWithOptions(sweeper.Sweep, activity.RegisterOptions{Name: activities.SweepName})
	got, err := env.ExecuteActivity(activities.SweepName, s.toldUntil)
	var swept activities.Swept
	if err == nil {
		require.NoError(s.t, got.Get(&swept))
		s.toldUntil, swept.Told = swept.Told, time.Time{}
	}
	return swept, err
}

// temporalsClock makes Temporal start activities at the test's time.
type temporalsClock struct {
	interceptor.WorkerInterceptorBase
	s *sweeping
}

func (c *temporalsClock) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &clockIn{interceptor.ActivityInboundInterceptorBase{Next: next}, c.s}
}

type clockIn struct {
	interceptor.ActivityInboundInterceptorBase
	s *sweeping
}

func (c *clockIn) Init(out interceptor.ActivityOutboundInterceptor) error {
	return c.Next.Init(&clockOut{interceptor.ActivityOutboundInterceptorBase{Next: out}, c.s})
}

type clockOut struct {
	interceptor.ActivityOutboundInterceptorBase
	s *sweeping
}

func (c *clockOut) GetInfo(ctx context.Context) activity.Info {
	info := c.Next.GetInfo(ctx)
	info.StartedTime = c.s.now
	return info
}

type quietLogger struct{}

func (quietLogger) Debug(string, ...any) {}
func (quietLogger) Info(string, ...any)  {}
func (quietLogger) Warn(string, ...any)  {}
func (quietLogger) Error(string, ...any) {}
