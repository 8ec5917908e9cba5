package modal

import (
	"fmt"
	"slices"
	"testing"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakemodal"
)

// TestRun: one prompt from hand-over to its file.
func TestRun(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	out := w.succeeds(w.run(w.ctx(), w.prompt(script{"size": 100}), nil))
	data, err := w.read(w.b, out)
	require.NoError(t, err)
	require.Len(t, data, 100)
	require.EqualValues(t, 1234, out.ColdStartMS)
	require.Equal(t, "NVIDIA L40S", out.GPU)
}

// TestEndsOfARunningCall: whatever Modal does to it, with the outcome that a client sees.
func TestEndsOfARunningCall(t *testing.T) {
	w := newWorld(t, nil)
	for name, c := range map[string]struct {
		does func(id string) error
		code comfy.Code
		ran  bool
	}{
		"internal failure": {func(id string) error { return w.m.InternalFailure(id) }, comfy.BackendLost, true},
		"timeout":          {func(id string) error { return w.m.TimeOut(id) }, comfy.Timeout, true},
		"out of memory":    {func(id string) error { return w.m.End(id, kernelOOMKill, "") }, comfy.OutOfMemory, true},
		"stopped":          {func(id string) error { return w.m.End(id, pb.GenericResult_GENERIC_STATUS_TERMINATED, "") }, comfy.BackendLost, true},
		"forgotten":        {func(id string) error { return w.m.Forget(id) }, comfy.BackendLost, true},
		"init failure":     {func(id string) error { return w.m.End(id, pb.GenericResult_GENERIC_STATUS_INIT_FAILURE, "boom") }, comfy.BackendUnavailable, false},
	} {
		t.Run(name, func(t *testing.T) {
			w.T, w.rec = t, backendtest.NewRecorder()
			w.ready(w.b)
			end := w.run(w.ctx(), w.prompt(script{"sleep": long}), nil)
			require.NoError(t, c.does(w.running()))
			e := w.fails(end, c.code)
			require.Equal(t, c.ran, e.Ran)
		})
	}
}

// TestRestarted: Modal runs a call whose container it has taken away, or lost, again by itself. It stays one job.
func TestRestarted(t *testing.T) {
	for name, does := range map[string]func(m *fakemodal.Server, id string) error{
		"preempted": func(m *fakemodal.Server, id string) error { return m.Preempt(id) },
		"killed":    func(m *fakemodal.Server, id string) error { return m.KillContainer(id) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.ready(w.b)
			p, let := w.held(nil)
			end := w.run(w.ctx(), p, nil)
			id := w.running()
			require.NoError(t, does(w.m, id))
			_, err := w.m.Wait(w.ctx(), func(c fakemodal.Call) bool { return c.ID == id && len(c.Attempts) == 2 })
			require.NoError(t, err)
			let()
			w.succeeds(end)
			call, err := w.m.Call(id)
			require.NoError(t, err)
			require.Len(t, call.Attempts, 2)
			require.Len(t, w.calls("run"), 1)
		})
	}
}

// TestExceptions that the app raises, by their class.
func TestExceptions(t *testing.T) {
	w := newWorld(t, nil)
	for class, c := range map[string]struct {
		code comfy.Code
		ran  bool
		says string
	}{
		"BackendLost": {comfy.BackendLost, true, "the ComfyUI at Modal was lost: it's gone"},
		"Stalled":     {comfy.Timeout, true, "no sign of life at Modal: it's gone"},
		"ValueError":  {comfy.BackendLost, true, "failed outside ComfyUI (ValueError)"},
		"StartFailed": {comfy.BackendUnavailable, false, "did not come up at Modal: it's gone"},
	} {
		t.Run(class, func(t *testing.T) {
			w.T = t
			w.ready(w.b)
			e := w.fails(w.run(w.ctx(), w.prompt(script{"raise": class, "text": "it's gone\n--- log ---\nlast words"}), nil), c.code)
			require.Equal(t, c.ran, e.Ran)
			require.Contains(t, e.Message, c.says)
			require.ErrorContains(t, e.Cause, "last words")
			require.ErrorContains(t, e.Cause, "scripted.py", "the traceback")
			require.NotContains(t, e.Message, "scripted.py")
			if class == "StartFailed" {
				again := errorOf(t, w.b.Ready(w.ctx(), w.prompt(nil)), comfy.BackendUnavailable)
				require.Equal(t, e.Message, again.Message, "it is put aside")
			}
		})
	}
}

// TestUserErrors are data in a result.
func TestUserErrors(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	for name, c := range map[string]struct {
		do   script
		code comfy.Code
		says string
	}{
		"refused": {script{"end": script{"end": "refused", "status": 400, "answer": script{"node_errors": script{"1": script{"class_type": "EmptyImage",
			"errors": []any{script{"type": "value_bigger_than_max", "message": "too big", "details": "width"}}}}}}},
			comfy.InvalidWorkflow, "node 1 (EmptyImage): too big: width"},
		"refused without a reason": {script{"end": script{"end": "refused", "status": 500, "answer": "x"}}, comfy.InvalidWorkflow, "without a reason"},
		"failed":                   {script{"end": script{"end": "failed", "code": "invalid_workflow", "message": "../x leaves the folder"}}, comfy.InvalidWorkflow, "../x leaves the folder"},
		"failed, new code":         {script{"end": script{"end": "failed", "code": "new", "message": "m"}}, comfy.Internal, "m"},
		"node": {script{"end": script{"end": "history", "history": script{"outputs": script{}, "status": script{"status_str": "error", "messages": []any{
			[]any{"execution_error", script{"node_id": "1", "node_type": "KSampler", "exception_type": "torch.OutOfMemoryError", "exception_message": "CUDA"}}}}}}},
			comfy.OutOfMemory, "node 1 (KSampler)"},
		"blocked": {script{"end": script{"end": "history", "errors": []any{script{"node_id": "2", "node_type": "X", "exception_type": "ExecutionBlocked", "exception_message": "no"}},
			"history": script{"outputs": script{}, "status": script{"status_str": "success"}}}}, comfy.NodeFailed, "ExecutionBlocked"},
		"file not read":  {script{"missing": "it was [Errno 2] /srv/x/y.png"}, comfy.OutputLost, "could not be read: it was [Errno 2] y.png"},
		"unknown end":    {script{"end": script{"end": "surprise"}}, comfy.Internal, "surprise"},
		"newer version":  {script{"end": script{"end": "history", "v": 2}}, comfy.Internal, "version 2"},
		"names itself":   {script{"end": script{"end": "duplicate"}}, comfy.Internal, "duplicate"},
		"another's text": {script{"raw": "text"}, comfy.Internal, "no byte string"},
		"another's map":  {script{"raw": script{"a": 1}}, comfy.Internal, "no byte string"},
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			e := w.fails(w.run(w.ctx(), w.prompt(c.do), nil), c.code)
			require.Contains(t, e.Message, c.says)
		})
	}
}

// TestControlPlaneAway in mid-call, and with it the progress channel: the call runs on, and so does the job.
func TestControlPlaneAway(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	p, let := w.held(nil)
	end := w.run(w.ctx(), p, nil)
	w.running()
	away := w.m.Unavailable()
	require.Eventually(t, func() bool { return !w.b.Servers()[0].Healthy }, patience, 10*time.Millisecond)
	require.Positive(t, away.Fired())
	away.Clear()
	let()
	w.succeeds(end)
	require.Equal(t, 1, w.executions())
}

// TestWithoutProgress: the channel is lost, or says nothing. Modal's call graph tells that the prompt runs.
func TestWithoutProgress(t *testing.T) {
	for name, c := range map[string]struct {
		do    script
		fault *fakemodal.Rule
	}{
		"mute":   {script{"mute": true}, nil},
		"broken": {nil, &fakemodal.Rule{Methods: []string{"QueueGet", "QueueGetOrCreate"}, From: fakemodal.Clients, Code: 13, Message: "broken"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.ready(w.b)
			if c.fault != nil {
				w.m.Inject(*c.fault)
			}
			p, let := w.held(c.do)
			end := w.run(w.ctx(), p, nil)
			w.running() // it is not known by its end, which waits
			let()
			w.succeeds(end)
		})
	}
}

// TestProgress comes through the channel, NaN and all.
func TestProgress(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	p, let := w.held(nil)
	end := w.run(w.ctx(), p, nil)
	w.stepped()
	let()
	w.succeeds(end)
	u := w.rec.Updates()
	require.Equal(t, backend.Update{Progress: comfy.Progress{NodesTotal: 2}}, u[0])
	require.Contains(t, u, backend.Update{Running: true, Progress: comfy.Progress{Value: 0.125, NodesTotal: 2, CurrentNode: "1", Step: 1, Steps: 4}})
	require.Equal(t, backend.Update{Running: true, Progress: comfy.Progress{Value: 1, NodesDone: 2, NodesTotal: 2}}, u[len(u)-1])
}

// stepped waits until the recorder has heard of the one step that the app shows.
func (w *world) stepped() {
	w.Helper()
	require.Eventually(w, func() bool {
		return slices.ContainsFunc(w.rec.Updates(), func(u backend.Update) bool { return u.Progress.Step == 1 })
	}, patience, 5*time.Millisecond)
}

// TestResultsThatAreGone, before the job has them and after.
func TestResultsThatAreGone(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	for name, c := range map[string]struct {
		does func(id string) error
		open comfy.Code
	}{
		"expired":   {func(id string) error { return w.m.Expire(id) }, comfy.OutputLost},
		"forgotten": {func(id string) error { return w.m.Forget(id) }, comfy.OutputLost},
		"blob lost": {func(id string) error { return w.m.LoseBlob(id) }, comfy.OutputLost},
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			p := w.prompt(script{"size": 100_000})
			out := w.succeeds(w.run(w.ctx(), p, nil))
			_, err := w.read(w.b, out)
			require.NoError(t, err)
			require.NoError(t, c.does(out.Handle.CallID))
			for _, b := range []*Backend{w.b, w.another()} { // one that knows the result's head, and one that does not
				_, err = w.read(b, out)
				errorOf(t, err, c.open)
				_, err = b.Run(w.ctx(), p, &out.Handle, w.rec)
				require.True(t, errorOf(t, err, comfy.BackendLost).Ran)
			}
		})
	}
}

// TestOpen streams a file from another worker; one with other bytes than the container had fails.
func TestOpen(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	for _, size := range []int{0, 1, 5000, 70_000, 3_000_000} { // inline, and as blobs
		out := w.succeeds(w.run(w.ctx(), w.prompt(script{"size": size}), nil))
		data, err := w.read(w.another(), out)
		require.NoError(t, err, "%d", size)
		require.Len(t, data, size)
	}
	out := w.succeeds(w.run(w.ctx(), w.prompt(script{"size": 5000, "corrupt": true}), nil))
	_, err := w.read(w.b, out)
	require.Contains(t, errorOf(t, err, comfy.OutputLost).Message, "other bytes")
	away := w.m.Unavailable()
	_, err = w.read(w.b, out)
	errorOf(t, err, comfy.BackendUnavailable)
	away.Clear()

	require.NoError(t, w.b.Release(w.ctx(), out.Handle, out.Files))
	require.NoError(t, w.b.Release(w.ctx(), out.Handle, out.Files))
	require.NoError(t, w.b.Release(w.ctx(), backend.Handle{CallID: "fc-unknown"}, nil))
	require.NoError(t, w.b.Release(w.ctx(), backend.Handle{PromptID: "x"}, nil))
	_, err = w.read(w.b, out)
	errorOf(t, err, comfy.OutputLost)
	call, err := w.m.Call(out.Handle.CallID)
	require.NoError(t, err)
	require.True(t, call.Gone)
}

// TestArguments: the graph keeps its digits, and the files arrive.
func TestArguments(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	p := w.prompt(script{"sleep": 0})
	p.Graph = backendtest.Prompt(t, fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":1,"color":7,"free":%s}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"x"}}}`, "1125899906842624007")).Graph
	w.succeeds(w.run(w.ctx(), p, nil))
	in, format, err := w.m.Input(w.call())
	require.NoError(t, err)
	require.Equal(t, pb.DataFormat_DATA_FORMAT_CBOR, format)
	require.Contains(t, string(in), "1125899906842624007")
	require.Contains(t, string(in), `["1",0]`)

	p = w.prompt(nil)
	p.Inputs = []backend.Input{{Name: "huge.bin", Size: maxInputs + 1}}
	e := w.fails(w.run(w.ctx(), p, nil), comfy.InvalidWorkflow)
	require.Contains(t, e.Message, "268435457 bytes, and at most 268435456")
}

// TestRestarts: what Modal has run beyond the one submission is told, and a prompt that no container survives is final.
func TestRestarts(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	e := w.fails(w.run(w.ctx(), w.prompt(script{"end": script{"end": "failed", "code": "backend_lost", "message": "3 containers ended", "starts": 3}}), nil), comfy.BackendLost)
	require.True(t, e.Final)
	require.True(t, e.Ran)
	require.Equal(t, 2, e.Restarts)
	status := script{"status_str": "error", "messages": []any{[]any{"execution_error", script{"node_id": "2", "node_type": "X", "exception_type": "E", "exception_message": "m"}}}}
	e = w.fails(w.run(w.ctx(), w.prompt(script{"end": script{"end": "history", "starts": 2, "history": script{"outputs": script{}, "status": status}}}), nil), comfy.NodeFailed)
	require.False(t, e.Final)
	require.Equal(t, 1, e.Restarts)
	e = w.fails(w.run(w.ctx(), w.prompt(script{"end": script{"end": "refused", "status": 400, "answer": script{}, "starts": 3}}), nil), comfy.InvalidWorkflow)
	require.Equal(t, 2, e.Restarts)
	e = w.fails(w.run(w.ctx(), w.prompt(script{"end": script{"end": "failed", "code": "invalid_workflow", "message": "m", "starts": 2}}), nil), comfy.InvalidWorkflow)
	require.Equal(t, 1, e.Restarts)
	e = w.fails(w.run(w.ctx(), w.prompt(script{"raise": "BackendLost", "text": "it died\n--- log ---\nlast words\n--- starts ---\n4"}), nil), comfy.BackendLost)
	require.Equal(t, 3, e.Restarts)
	require.ErrorContains(t, e.Cause, "last words")
	require.NotContains(t, e.Error(), "--- starts")
}
