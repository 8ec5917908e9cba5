package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/comfyd/comfyd/comfy"
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
	options  client.StartWorkflowOptions
	own      *comfy.Status // the answer of the query; nil: no worker is there
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
	mu        sync.Mutex
	runs      map[string]*fakeRun
	err       error // of every call
	startErr  error
	hold      chan struct{} // Describe waits for it, where it is set
	describes atomic.Int64
	queries   atomic.Int64
	gets      atomic.Int64
}

func (f *fakeTemporal) ExecuteWorkflow(_ context.Context, o client.StartWorkflowOptions, name any, args ...any) (client.WorkflowRun, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(f.err, f.startErr); err != nil {
		return nil, err
	}
	if _, ok := f.runs[o.ID]; ok {
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
	run.info.Memo = &commonpb.Memo{Fields: memo}
	run.options = o
	f.runs[o.ID] = run
	return &fakeHandle{f: f, id: o.ID}, json.Unmarshal(raw, &run.request)
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

func (f *fakeTemporal) GetWorkflow(_ context.Context, id, _ string) client.WorkflowRun {
	return &fakeHandle{f: f, id: id}
}

func (f *fakeTemporal) CancelWorkflow(_ context.Context, id, _ string) error {
	run, err := f.get(id)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if run.info.Status != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
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
	return &workflowservice.DescribeWorkflowExecutionResponse{
		WorkflowExecutionInfo: run.info, WorkflowExtendedInfo: run.extended, PendingActivities: run.pending,
	}, nil
}

func (f *fakeTemporal) QueryWorkflowWithOptions(ctx context.Context, q *client.QueryWorkflowWithOptionsRequest) (*client.QueryWorkflowWithOptionsResponse, error) {
	f.queries.Add(1)
	run, err := f.get(q.WorkflowID)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	own := run.own
	f.mu.Unlock()
	if own == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	payloads, err := converter.GetDefaultDataConverter().ToPayloads(own)
	if err != nil {
		return nil, err
	}
	return &client.QueryWorkflowWithOptionsResponse{QueryResult: client.NewValue(payloads)}, nil
}

func (f *fakeTemporal) CheckHealth(context.Context, *client.CheckHealthRequest) (*client.CheckHealthResponse, error) {
	return &client.CheckHealthResponse{}, f.err
}

type fakeHandle struct {
	client.WorkflowRun
	f  *fakeTemporal
	id string
}

func (h *fakeHandle) GetID() string { return h.id }

func (h *fakeHandle) Get(ctx context.Context, value any) error {
	h.f.gets.Add(1)
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

// fakeStore keeps objects in memory.
type fakeStore struct {
	mu      sync.Mutex
	objects map[string][]byte
	err     error
	sizes   map[string]int64 // endless objects of this size, for large downloads
	opened  atomic.Int64
}

func (f *fakeStore) PutHashed(_ context.Context, prefix string, r io.Reader) (comfy.Blob, error) {
	if f.err != nil {
		return comfy.Blob{}, f.err
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return comfy.Blob{}, fmt.Errorf("store: source failed: %v", err)
	}
	return f.put(prefix, raw), nil
}

func (f *fakeStore) put(prefix string, raw []byte) comfy.Blob {
	sum := sha256.Sum256(raw)
	key := prefix + hex.EncodeToString(sum[:])
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[key] = raw
	return comfy.Blob{Key: key, Size: int64(len(raw)), SHA256: hex.EncodeToString(sum[:])}
}

func (f *fakeStore) Open(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if f.err != nil {
		return nil, f.err
	}
	f.opened.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if size, ok := f.sizes[key]; ok {
		return &counted{Reader: io.LimitReader(pattern{}, min(length, size-offset)), open: &f.opened}, nil
	}
	raw, ok := f.objects[key]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", key, fs.ErrNotExist)
	}
	raw = raw[offset:]
	if length >= 0 {
		raw = raw[:length]
	}
	return &counted{Reader: bytes.NewReader(raw), open: &f.opened}, nil
}

func (f *fakeStore) Stat(_ context.Context, key string) (comfy.Blob, error) {
	if f.err != nil {
		return comfy.Blob{}, f.err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if size, ok := f.sizes[key]; ok {
		return comfy.Blob{Key: key, Size: size}, nil
	}
	raw, ok := f.objects[key]
	if !ok {
		return comfy.Blob{}, fmt.Errorf("stat %s: %w", key, fs.ErrNotExist)
	}
	return comfy.Blob{Key: key, Size: int64(len(raw))}, nil
}

func (f *fakeStore) Ping(context.Context) error { return f.err }

// counted counts itself out on Close.
type counted struct {
	io.Reader
	open *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return nil
}

// pattern is an endless file.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i * 31)
	}
	return len(p), nil
}

type fakeCatalogs struct {
	refuse atomic.Pointer[comfy.Failure]
	dead   error
	panics bool
}

func (f *fakeCatalogs) Check(context.Context, *comfy.Graph, []string, string) *comfy.Failure {
	if f.panics {
		panic("secret detail")
	}
	return f.refuse.Load()
}

func (f *fakeCatalogs) Alive(context.Context) error { return f.dead }

// harness is a server on a real port, on doubles.
type harness struct {
	t        *testing.T
	server   *Server
	temporal *fakeTemporal
	store    *fakeStore
	catalogs *fakeCatalogs
	log      *lockedBuffer
	addr     string
	client   *http.Client
}

const (
	keyA = "secret-of-a"
	keyB = "secret-of-b"
)

func newHarness(t *testing.T, change ...func(*Options)) *harness {
	h := &harness{
		t: t, temporal: &fakeTemporal{runs: map[string]*fakeRun{}},
		store:    &fakeStore{objects: map[string][]byte{}, sizes: map[string]int64{}},
		catalogs: &fakeCatalogs{}, log: &lockedBuffer{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 20 * time.Second},
	}
	log := logrus.New()
	log.SetOutput(h.log)
	log.SetLevel(logrus.DebugLevel)
	o := Options{
		Temporal: h.temporal, Store: h.store, Catalogs: h.catalogs, Log: log, Version: "test",
		Keys:       []Key{{Tenant: "a", Secret: keyA}, {Tenant: "b", Secret: keyB}},
		SigningKey: []byte("0123456789abcdef0123456789abcdef"),
	}
	for _, c := range change {
		c(&o)
	}
	server, err := New(o)
	require.NoError(t, err)
	h.server = server
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		h.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, server.Shutdown(ctx))
		require.NoError(t, <-served)
	})
	return h
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

func (h *harness) do(method, path, body string, headers ...string) answer {
	h.t.Helper()
	target := path
	if !strings.HasPrefix(path, "http") {
		target = "http://" + h.addr + path
	}
	req, err := http.NewRequest(method, target, strings.NewReader(body))
	require.NoError(h.t, err)
	req.Header.Set("Authorization", "Bearer "+keyA)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := h.client.Do(req)
	require.NoError(h.t, err)
	return h.read(resp)
}

func (h *harness) read(resp *http.Response) answer {
	h.t.Helper()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(h.t, err)
	require.NoError(h.t, resp.Body.Close())
	a := answer{status: resp.StatusCode, header: resp.Header, raw: raw}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") && len(raw) > 0 {
		require.NoError(h.t, json.Unmarshal(raw, &a.body), "%s", raw)
	}
	return a
}

const graphJSON = `{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":9007199254740993}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"x"}}}`

func (h *harness) submit(body string, headers ...string) answer {
	h.t.Helper()
	return h.do("POST", "/submit_workflow", body, headers...)
}

// submitted starts a job and returns it with its ID.
func (h *harness) submitted() (string, *fakeRun) {
	h.t.Helper()
	a := h.submit(`{"workflow":` + graphJSON + `}`)
	require.Equal(h.t, 202, a.status, "%s", a.raw)
	id := a.body["id"].(string)
	run, err := h.temporal.get(id)
	require.NoError(h.t, err)
	return id, run
}

// complete ends a job with these files, stored as its images.
func (h *harness) complete(run *fakeRun, images ...[]byte) {
	h.t.Helper()
	run.result = comfy.Result{Attempts: 1, Backend: "url", Metrics: comfy.Metrics{TotalMS: 12}}
	for i, raw := range images {
		blob := h.store.put("outputs/"+run.info.Execution.WorkflowId+"/", raw)
		run.result.Images = append(run.result.Images, comfy.Output{
			Filename: fmt.Sprintf("x_%05d_.png", i+1), Ref: blob.Key, NodeID: "2", ContentType: "image/png",
			SizeBytes: blob.Size, SHA256: blob.SHA256, Width: 64, Height: 64,
		})
	}
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
}

func (h *harness) finish(run *fakeRun, status enums.WorkflowExecutionStatus) {
	h.temporal.mu.Lock()
	defer h.temporal.mu.Unlock()
	run.end(status)
	h.server.open.forget(run.info.Execution.WorkflowId)
}

// change changes a run while the server may read it.
func (h *harness) change(run *fakeRun, f func()) {
	h.temporal.mu.Lock()
	defer h.temporal.mu.Unlock()
	f()
	h.server.open.forget(run.info.Execution.WorkflowId)
}

func (h *harness) requireError(a answer, status int, code Code) {
	h.t.Helper()
	require.Equal(h.t, status, a.status, "%s", a.raw)
	require.Equal(h.t, string(code), a.body["code"], "%s", a.raw)
	require.NotEmpty(h.t, a.body["error"])
	require.Equal(h.t, "nosniff", a.header.Get("X-Content-Type-Options"))
	require.Equal(h.t, "no-store", a.header.Get("Cache-Control"))
}
