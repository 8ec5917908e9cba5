package activities_test

import (
	"context"
	"errors"
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
	"github.com/comfyd/comfyd/comfy"
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
	})
	env.RegisterActivityWithOptions(sweeper.Sweep, activity.RegisterOptions{Name: activities.SweepName})
	got, err := env.ExecuteActivity(activities.SweepName)
	var swept activities.Swept
	if err == nil {
		require.NoError(s.t, got.Get(&swept))
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

func TestSweep(t *testing.T) {
	s := newSweeping(t)
	s.ledger.runs["known"] = "r"
	s.ledger.users = []string{"ComfyInputs = '2d711642b726' AND ComfyTenant = 'busy'"}
	s.named["catalogs/"+hash] = true
	kept := []string{
		"catalogs/" + hash,      // a worker names it
		"catalogs/young",        //
		"graphs/busy/" + hash,   // a job names it
		"inputs/alice/young",    // a job of a day and more may have it
		"other/very-old",        // nobody knows what it is
		"outputs/fresh/" + hash, // a job that runs
		"outputs/known/" + hash, // Temporal has it still
		"outputs/~ab/" + hash,   // a child that cannot be asked about
		"removals/x/run",        // just written
		"workers/url/host.json", // the directory's affair
	}
	gone := []string{
		"catalogs/old", "graphs/alice/" + hash, "inputs/alice/" + hash, "outputs/forgotten/a", "outputs/forgotten/b", "outputs/~cd/" + hash,
	}
	ages := map[string]time.Duration{
		"catalogs/young": 23 * time.Hour, "catalogs/old": 25 * time.Hour, "inputs/alice/young": 8 * day, "outputs/fresh/" + hash: 7*day - time.Minute,
		"outputs/~ab/" + hash: 8 * day, "removals/x/run": time.Minute,
	}
	for _, key := range slices.Concat(kept, gone) {
		age, ok := ages[key]
		if !ok {
			age = 100 * day
		}
		s.put(key, age)
	}
	swept, err := s.sweep(s.store)
	require.NoError(t, err)
	require.Equal(t, activities.Swept{Outputs: 3, Inputs: 1, Graphs: 1, Catalogs: 1, Bytes: 6}, swept)
	require.Equal(t, kept, s.has())
	require.Equal(t, []string{"forgotten", "known"}, s.ledger.asked, "once about each job, and about no young one")
	swept, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Zero(t, swept, "two of them, or one after the other, do no harm")
}

// TestSweepInDoubt: what Temporal or the store does not say for certain removes nothing.
func TestSweepInDoubt(t *testing.T) {
	for name, doubt := range map[string]error{
		"Temporal is away":  serviceerror.NewUnavailable("away"),
		"no such namespace": serviceerror.NewNamespaceNotFound("default"),
		"no right to ask":   serviceerror.NewPermissionDenied("no", ""),
		"no answer in time": context.DeadlineExceeded,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSweeping(t)
			for _, key := range []string{"catalogs/old", "graphs/a/" + hash, "inputs/a/" + hash, "outputs/forgotten/a"} {
				s.put(key, 100*day)
				s.ledger.err = doubt
				before := s.has()
				_, err := s.sweep(s.store)
				require.Error(t, err, key)
				require.Equal(t, before, s.has())
				require.NoError(t, s.store.Delete(t.Context(), key))
			}
		})
	}
	t.Run("the store breaks", func(t *testing.T) {
		s := newSweeping(t)
		s.put("outputs/forgotten/a", 100*day)
		_, err := s.sweep(brokenStat{s.store})
		require.ErrorContains(t, err, "broken")
		require.Len(t, s.has(), 1)
	})
	t.Run("another namespace's store", func(t *testing.T) {
		s := newSweeping(t)
		s.put("outputs/forgotten/a", 100*day)
		s.ledger.namespace = "n2"
		swept, err := s.sweep(s.store)
		require.NoError(t, err)
		require.Equal(t, activities.Swept{Skipped: true}, swept)
		require.Len(t, s.has(), 1)
		require.Contains(t, s.notes.LastEntry().Message, "remove owner/namespace from the store")
	})
	t.Run("an open job that does not say what it uses", func(t *testing.T) {
		s := newSweeping(t)
		s.put("inputs/a/"+hash, 100*day)
		s.ledger.users = []string{"ComfyInputs IS NULL AND CloseTime IS NULL"}
		_, err := s.sweep(s.store)
		require.NoError(t, err)
		require.Len(t, s.has(), 1)
	})
	t.Run("nobody's store", func(t *testing.T) {
		s := newSweeping(t)
		require.NoError(t, s.store.Delete(t.Context(), removal.OwnerKey))
		s.put("outputs/forgotten/a", 100*day)
		swept, err := s.sweep(s.store)
		require.NoError(t, err)
		require.Equal(t, activities.Swept{Skipped: true}, swept, "another may have taken it in the same moment")
		require.Len(t, s.has(), 1)
		swept, err = s.sweep(s.store)
		require.NoError(t, err)
		require.Equal(t, 1, swept.Outputs)
	})
	t.Run("another namespace's removal", func(t *testing.T) {
		s := newSweeping(t)
		r := &removal.Remover{Temporal: s.ledger, Namespace: "theirs", NamespaceID: "n2", Store: s.store}
		require.NoError(t, r.Remove(t.Context(), removal.Job{ID: "job", RunID: "run-1", Tenant: "alice", Started: s.now}))
		s.put("outputs/job/late", time.Minute)
		before := s.has()
		s.now = time.Now().Add(time.Hour)
		swept, err := s.sweep(s.store)
		require.NoError(t, err)
		require.Zero(t, swept)
		require.Equal(t, before, s.has())
	})
	t.Run("stored anew meanwhile", func(t *testing.T) {
		s := newSweeping(t)
		s.put("outputs/forgotten/a", 100*day)
		_, err := s.sweep(renewing{s.store})
		require.NoError(t, err)
		require.Len(t, s.has(), 1)
	})
}

type brokenStat struct{ *store.Store }

func (brokenStat) Stat(context.Context, string) (comfy.Blob, error) {
	return comfy.Blob{}, errors.New("broken")
}

// takenOver sees a new job take the ID after the first removal.
type takenOver struct {
	*store.Store
	taken func()
}

func (o takenOver) Delete(ctx context.Context, key string) error {
	defer o.taken()
	return o.Store.Delete(ctx, key)
}

// renewing stores an output anew right before a look at it.
type renewing struct{ *store.Store }

func (r renewing) Stat(ctx context.Context, key string) (comfy.Blob, error) {
	if err := r.Touch(ctx, key); err != nil {
		return comfy.Blob{}, err
	}
	return r.Store.Stat(ctx, key)
}

// TestSweepGoesOn: an attempt begins where the last one stopped.
func TestSweepGoesOn(t *testing.T) {
	s := newSweeping(t)
	for _, key := range []string{"inputs/a/" + hash, "outputs/a/1", "outputs/b/1", "outputs/c/1"} {
		s.put(key, 100*day)
	}
	swept, err := s.sweep(s.store, map[string]any{"after": "outputs/b/1", "swept": map[string]any{"outputs": 4}})
	require.NoError(t, err)
	require.Equal(t, 5, swept.Outputs)
	require.Equal(t, []string{"inputs/a/" + hash, "outputs/a/1", "outputs/b/1"}, s.has())
	require.Equal(t, []string{"c"}, s.ledger.asked)
}

// TestSweepFinishesRemovals: a deletion that a crash has interrupted is carried out, and its note goes when Temporal has
// forgotten the job.
func TestSweepFinishesRemovals(t *testing.T) {
	s := newSweeping(t)
	r := &removal.Remover{Temporal: s.ledger, Namespace: "default", Store: s.store}
	in := "inputs/alice/" + hash
	note := func(id string) string { return "removals/" + id + "/run-1" }
	begun := func(id string) {
		s.ledger.err = errors.New("crash")
		err := r.Remove(t.Context(), removal.Job{ID: id, RunID: "run-1", Tenant: "alice", Started: s.now, Inputs: []string{in, "inputs/bob/" + hash}})
		require.ErrorIs(t, err, removal.ErrUnfinished)
		s.ledger.err = nil
		s.put(in, time.Hour)
		s.put("outputs/"+id+"/late", time.Minute)
	}
	s.put("inputs/bob/"+hash, time.Hour)
	begun("job")
	deleted, err := r.Deleted(t.Context(), "job", "run-1")
	require.NoError(t, err)
	require.True(t, deleted)
	again, err := r.Deleted(t.Context(), "job", "run-2")
	require.NoError(t, err)
	require.False(t, again, "a new job of the same ID")

	s.ledger.runs["job"] = "run-1"
	s.now = time.Now().Add(9 * time.Minute)
	_, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Contains(t, s.has(), in, "whoever began may be at work")

	s.now = time.Now().Add(11 * time.Minute)
	swept, err := s.sweep(s.store)
	require.NoError(t, err)
	require.Zero(t, swept.Removals)
	require.Equal(t, []string{"inputs/bob/" + hash, note("job")}, s.has(), "another tenant's file is none of the job's")
	require.Equal(t, "run-1", s.ledger.deleted[len(s.ledger.deleted)-1])
	require.LessOrEqual(t, slices.Max(s.ledger.limits), removal.CallTimeout, "a hung call holds up no sweep for hours")

	delete(s.ledger.runs, "job")
	s.put("outputs/job/straggler", time.Minute)
	swept, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Equal(t, 1, swept.Removals)
	require.Equal(t, []string{"inputs/bob/" + hash}, s.has())

	// Where a new job has the ID, the outputs are its own.
	begun("reused")
	s.ledger.runs["reused"] = "run-2"
	s.now = time.Now().Add(22 * time.Minute)
	swept, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Equal(t, 1, swept.Removals)
	require.Equal(t, []string{"inputs/bob/" + hash, "outputs/reused/late"}, s.has())

	// So are those that it stores while the old ones are being removed.
	s.ledger.runs["taken"] = "run-1"
	s.put("outputs/taken/1", time.Minute)
	s.put("outputs/taken/2", time.Minute)
	taking := &removal.Remover{Temporal: s.ledger, Namespace: "default", Store: takenOver{s.store, func() { s.ledger.runs["taken"] = "run-2" }}}
	require.NoError(t, taking.Remove(t.Context(), removal.Job{ID: "taken", RunID: "run-1", Tenant: "alice", Started: s.now}))
	require.NotContains(t, s.has(), "outputs/taken/1")
	require.Contains(t, s.has(), "outputs/taken/2")
	require.NoError(t, s.store.Delete(t.Context(), note("taken")))

	// One that cannot be read does not keep the others.
	s.put("removals/a/b", time.Hour)
	begun("last")
	s.now = time.Now().Add(33 * time.Minute)
	s.put("outputs/forgotten/a", 100*day)
	swept, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Equal(t, 1, swept.Outputs, "nor the rest of the sweep")
	said := s.notes.AllEntries()
	unfinished := said[slices.IndexFunc(said, func(e *logrus.Entry) bool { return e.Level == logrus.WarnLevel })]
	require.ErrorContains(t, unfinished.Data[logrus.ErrorKey].(error), "removals/a/b cannot be read")
	require.NotContains(t, s.has(), note("last"))
}
