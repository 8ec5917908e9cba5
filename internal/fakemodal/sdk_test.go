package fakemodal_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

func TestCallFromGo(t *testing.T) {
	w := newWorld(t)
	fc := w.spawn(w.method("echo"), map[string]any{"a": 1.5, "b": []any{"x", true, nil}})
	v, err := w.get(fc)
	require.NoError(t, err)
	got := v.(map[any]any)
	require.Equal(t, map[any]any{"a": 1.5, "b": []any{"x", true, nil}}, got["value"])
	require.Equal(t, fc.FunctionCallID, got["call"], "Modal's own context variable names the call")
	require.Equal(t, "it's set", got["image"], "the image's ENV reaches the container")
	require.Equal(t, false, got["local"])

	again, err := w.connect().FunctionCalls.FromID(testContext(t), fc.FunctionCallID, nil)
	require.NoError(t, err)
	second, err := w.get(again)
	require.NoError(t, err)
	require.Equal(t, v, second, "another process gets the same result")

	c := w.Calls()[0]
	require.Equal(t, "Worker.*", c.Function)
	require.Equal(t, "echo", c.Method)
	require.Equal(t, "success", c.Outcome)
	require.Equal(t, []string{"L40S", "A100-80GB"}, c.GPUs)
	require.Len(t, c.Attempts, 1)
	require.Equal(t, got["task"], c.Attempts[0].TaskID)
	require.Positive(t, c.GPUTime())
}

func TestRemoteCall(t *testing.T) {
	w := newWorld(t)
	v, err := w.function("peek").Remote(testContext(t), nil, nil)
	require.NoError(t, err)
	require.Equal(t, "s3cret", v, "the secret is in the container's environment")
	require.True(t, w.Calls()[0].Gone, "Remote takes the result away")
	require.Zero(t, w.Calls()[0].GPUTime(), "a function without a GPU costs none")
}

func TestBigInputAndOutput(t *testing.T) {
	w := newWorld(t)
	text := strings.Repeat("ä0123456789", 2000)
	got := w.run(w.method("echo"), text).(map[any]any)
	require.Equal(t, text, got["value"])
	require.Len(t, w.Requests("BlobCreate"), 2, "input and output go through blobs: both are over 8 KiB")

	big := w.run(w.method("big"), 3<<20).([]byte)
	require.Len(t, big, 3<<20)
}

func TestFollowByRawLongPoll(t *testing.T) {
	w := newWorld(t)
	var cc *grpc.ClientConn
	client := w.connect(func(ctx context.Context, method string, req, reply any, c *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		cc = c
		return next(ctx, method, req, reply, c, opts...)
	})
	fc := w.spawn(w.method("fail"))
	_, err := client.FunctionCalls.FromID(testContext(t), fc.FunctionCallID, nil)
	require.NoError(t, err)
	w.state(fc, fakemodal.Done)
	raw := pb.NewModalClientClient(cc)
	// The connection's own interceptors authenticate.
	out, err := raw.FunctionGetOutputs(testContext(t), pb.FunctionGetOutputsRequest_builder{FunctionCallId: fc.FunctionCallID, Timeout: 5, LastEntryId: "0-0"}.Build())
	require.NoError(t, err)
	require.Len(t, out.GetOutputs(), 1)
	r := out.GetOutputs()[0].GetResult()
	require.Equal(t, pb.GenericResult_GENERIC_STATUS_FAILURE, r.GetStatus())
	require.Equal(t, "ValueError('on purpose')", r.GetException())
	require.Contains(t, r.GetTraceback(), "testapp.py")
	require.NotEmpty(t, out.GetOutputs()[0].GetTaskId())

	clear := pb.FunctionGetOutputsRequest_builder{FunctionCallId: fc.FunctionCallID, LastEntryId: "0-0", ClearOnSuccess: true}.Build()
	out, err = raw.FunctionGetOutputs(testContext(t), clear)
	require.NoError(t, err)
	require.Len(t, out.GetOutputs(), 1)
	out, err = raw.FunctionGetOutputs(testContext(t), clear)
	require.NoError(t, err)
	require.Empty(t, out.GetOutputs())
	require.Zero(t, out.GetNumUnfinishedInputs())
}

func TestPolling(t *testing.T) {
	w := newWorld(t)
	fc := w.spawn(w.method("sleep"), long)
	w.state(fc, fakemodal.Running)
	for _, wait := range []time.Duration{0, 300 * time.Millisecond} {
		start := time.Now()
		_, err := fc.Get(testContext(t), &modal.FunctionCallGetParams{Timeout: &wait})
		var timeout modal.TimeoutError
		require.ErrorAs(t, err, &timeout)
		require.GreaterOrEqual(t, time.Since(start), wait)
	}
	graph, err := w.raw().FunctionGetCallGraph(testContext(t), pb.FunctionGetCallGraphRequest_builder{FunctionCallId: fc.FunctionCallID}.Build())
	require.NoError(t, err)
	require.Equal(t, w.Calls()[0].TaskID, graph.GetInputs()[0].GetTaskId())
	require.NotEmpty(t, graph.GetInputs()[0].GetTaskId())
}

// raw is a plain stub over an authenticated connection of the SDK.
func (w *world) raw() pb.ModalClientClient {
	var cc *grpc.ClientConn
	c := w.connect(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		cc = conn
		return next(ctx, method, req, reply, conn, opts...)
	})
	_, err := c.Functions.FromName(testContext(w.t), "testapp", "peek", nil)
	require.NoError(w.t, err)
	return pb.NewModalClientClient(cc)
}

func TestErrorsOfLookups(t *testing.T) {
	w := newWorld(t)
	ctx := testContext(t)
	var notFound modal.NotFoundError
	_, err := w.client.Cls.FromName(ctx, "nowhere", "Worker", nil)
	require.ErrorAs(t, err, &notFound)
	_, err = w.client.Cls.FromName(ctx, "testapp", "Nobody", nil)
	require.ErrorAs(t, err, &notFound)
	cls, err := w.client.Cls.FromName(ctx, "testapp", "Worker", nil)
	require.NoError(t, err)
	instance, err := cls.Instance(ctx, nil)
	require.NoError(t, err)
	_, err = instance.Method("nothing")
	require.ErrorAs(t, err, &notFound)
	_, err = w.client.Functions.FromName(ctx, "testapp", "peek", &modal.FunctionFromNameParams{Environment: "prod"})
	require.ErrorAs(t, err, &notFound)
	_, err = w.client.FunctionCalls.FromID(ctx, "fc-unknown", nil)
	require.Equal(t, codes.NotFound, status.Code(err))
}

func TestOptionsMakeAVariant(t *testing.T) {
	w := newWorld(t)
	gpu, timeout, most := "H100", 10*time.Second, 1 // long enough for an echo on a busy machine
	options := &modal.ClsWithOptionsParams{GPU: &gpu, Timeout: &timeout, MaxContainers: &most}
	first := w.spawn(w.method("echo", options), 1)
	_, err := w.get(first)
	require.NoError(t, err)
	_, err = w.get(w.spawn(w.method("echo", options), 2))
	require.NoError(t, err)
	require.Len(t, w.Containers(), 1, "the same options are the same variant")
	require.Equal(t, []string{"H100"}, w.Containers()[0].GPUs)
	c := w.Calls()[0]
	require.Equal(t, []string{"H100"}, c.GPUs)
	require.Equal(t, timeout, c.Timeout)

	_, err = w.get(w.spawn(w.method("sleep", options), long))
	var timedOut modal.FunctionTimeoutError
	require.ErrorAs(t, err, &timedOut)
	require.Regexp(t, `^Task's current input in-\w+ hit its timeout of 10s$`, timedOut.Exception)
	w.marked("InputCancellation", 1)
	_, err = w.get(w.spawn(w.method("echo", options), 3))
	require.NoError(t, err)
	require.Len(t, w.Containers(), 1, "a container survives the timeout of its input")

	_, err = w.get(w.spawn(w.method("echo"), 4))
	require.NoError(t, err)
	require.Len(t, w.Containers(), 2, "without options it is the class's own pool")
}

func TestStats(t *testing.T) {
	w := newWorld(t)
	f := w.method("sleep")
	for range 3 {
		w.spawn(f, long)
	}
	_, err := w.Wait(testContext(t), func(c fakemodal.Call) bool { return c.State == fakemodal.Running })
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		st, err := f.GetCurrentStats(testContext(t), nil)
		return err == nil && st.Backlog == 1 && st.NumTotalRunners == 2
	}, 2*time.Minute, 20*time.Millisecond, "max_containers is 2, so one of three calls waits")
}

func TestQueueFromContainerToGo(t *testing.T) {
	w := newWorld(t)
	ctx := testContext(t)
	q, err := w.client.Queues.FromName(ctx, "testapp-progress", &modal.QueueFromNameParams{CreateIfMissing: true})
	require.NoError(t, err)
	w.spawn(w.method("tell"), "job-1", 3)
	wait := 2 * time.Minute
	params := modal.QueueGetParams{Partition: "job-1", Timeout: &wait}
	for _, want := range []string{"news 0", "news 1", "news 2"} {
		v, err := q.Get(ctx, &params)
		require.NoError(t, err)
		require.Equal(t, want, v)
	}
	n, err := q.Len(ctx, &modal.QueueLenParams{Total: true})
	require.NoError(t, err)
	require.Zero(t, n)
	wait = 50 * time.Millisecond
	_, err = q.Get(ctx, &params)
	var empty modal.QueueEmptyError
	require.ErrorAs(t, err, &empty)

	require.NoError(t, q.Put(ctx, "kept", &modal.QueuePutParams{Partition: "other"}))
	for v, err := range q.Iterate(ctx, &modal.QueueIterateParams{Partition: "other", ItemPollTimeout: time.Millisecond}) {
		require.NoError(t, err)
		require.Equal(t, "kept", v)
	}
	n, err = q.Len(ctx, &modal.QueueLenParams{Partition: "other"})
	require.NoError(t, err)
	require.Equal(t, 1, n, "reading does not take")
}

func TestVolume(t *testing.T) {
	w := newWorld(t, func(o *fakemodal.Options) { o.Env["TESTAPP_MODELS"] = fakemodal.VolumesDir + "/testapp-models" })
	w.run(w.method("store"), "unet/a.safetensors", "weights")
	data, err := os.ReadFile(filepath.Join(w.VolumeDir("testapp-models"), "unet", "a.safetensors"))
	require.NoError(t, err)
	require.Equal(t, "weights", string(data))
	require.Equal(t, 1, w.Count("VolumeCommit"))

	raw := w.raw()
	v, err := w.client.Volumes.FromName(testContext(t), "testapp-models", nil)
	require.NoError(t, err)
	out, err := raw.VolumeListFiles(testContext(t), pb.VolumeListFilesRequest_builder{VolumeId: v.VolumeID, Path: "/", Recursive: true}.Build())
	require.NoError(t, err)
	batch, err := out.Recv()
	require.NoError(t, err)
	_, err = out.Recv()
	require.ErrorIs(t, err, io.EOF)
	var names []string
	for _, e := range batch.GetEntries() {
		names = append(names, e.GetPath())
	}
	require.Equal(t, []string{"unet", "unet/a.safetensors"}, names)
	require.EqualValues(t, 7, batch.GetEntries()[1].GetSize())
	_, err = w.client.Volumes.FromName(testContext(t), "nothing", nil)
	var notFound modal.NotFoundError
	require.ErrorAs(t, err, &notFound)
}

func TestApp(t *testing.T) {
	w := newWorld(t)
	app, err := w.client.Apps.FromName(testContext(t), "testapp", nil)
	require.NoError(t, err)
	life, err := w.raw().AppGetLifecycle(testContext(t), pb.AppGetLifecycleRequest_builder{AppId: app.AppID}.Build())
	require.NoError(t, err)
	require.Equal(t, pb.AppState_APP_STATE_DEPLOYED, life.GetLifecycle().GetAppState())
	require.EqualValues(t, 1, life.GetLifecycle().GetVersion())
	_, err = w.client.Apps.FromName(testContext(t), "nothing", nil)
	require.Error(t, err)
}

func TestBlobIsChecked(t *testing.T) {
	w := newWorld(t)
	blob, err := w.raw().BlobCreate(testContext(t), pb.BlobCreateRequest_builder{ContentLength: 10}.Build())
	require.NoError(t, err)
	put := func(body, sum string) int {
		req, err := http.NewRequestWithContext(testContext(t), http.MethodPut, blob.GetUploadUrl(), strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-MD5", sum)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	const sum = "eB5eJF1ptWaXm4bijSPyxw==" // of 0123456789
	require.Equal(t, http.StatusBadRequest, put("012345678x", sum))
	_, err = w.raw().BlobGet(testContext(t), pb.BlobGetRequest_builder{BlobId: blob.GetBlobId()}.Build())
	require.Equal(t, codes.NotFound, status.Code(err))
	require.Equal(t, http.StatusOK, put("0123456789", sum))
	got, err := w.raw().BlobGet(testContext(t), pb.BlobGetRequest_builder{BlobId: blob.GetBlobId()}.Build())
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(testContext(t), http.MethodGet, got.GetDownloadUrl(), nil)
	require.NoError(t, err)
	req.Header.Set("Range", "bytes=3-5")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() // read only
	require.Equal(t, http.StatusPartialContent, resp.StatusCode)
	part, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "345", string(part))
	http.DefaultClient.CloseIdleConnections()
}

func TestDictInContainer(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, []any{true, true}, w.run(w.method("claim"), "job-1"), "the first call gets it")
	require.Equal(t, []any{false, false}, w.run(w.method("claim"), "job-1"), "and no other")
	require.Equal(t, []any{true, true}, w.run(w.method("claim"), "job-2"))
}

func TestCallsBetweenContainers(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, "hi hi", w.run(w.function("spawn_echo"), "hi"))
	fc := w.spawn(w.method("echo"), 1)
	task := w.run(w.function("relay"), fc.FunctionCallID)
	require.Equal(t, w.state(fc, fakemodal.Done).Attempts[0].TaskID, task, "a container follows a call by its ID")
}

func TestCallFromPython(t *testing.T) {
	w := newWorld(t)
	cmd := exec.CommandContext(testContext(t), python(t), "-c", `
import modal
worker = modal.Cls.from_name("testapp", "Worker")()
call = worker.echo.spawn([1, "two"])
print(modal.FunctionCall.from_id(call.object_id).get(timeout=120)["value"])
try:
    worker.fail.remote()
except ValueError as e:
    print(repr(e))
call = worker.sleep.spawn(300)
call.cancel()
try:
    call.get(timeout=120)
except Exception as e:
    print(type(e).__name__)
`)
	cmd.Env = os.Environ()
	for k, v := range w.Env() {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, "[1, 'two']\nValueError('on purpose')\nRemoteError\n", string(out))
}

func TestWrongToken(t *testing.T) {
	w := newWorld(t)
	c := w.connectAs("ak-fake", "wrong")
	_, err := c.Functions.FromName(testContext(t), "testapp", "peek", nil)
	require.Equal(t, codes.Unauthenticated, status.Code(err))
}
