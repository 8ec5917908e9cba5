package fakemodal_test

import (
	"context"
	"slices"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

// long is for what a test ends before its time is up. In seconds, as the app takes them.
const long = 300

func TestPreempt(t *testing.T) {
	for _, method := range []string{"sleep", "sleep_async"} {
		t.Run(method, func(t *testing.T) {
			w := newWorld(t)
			fc := w.spawn(w.method(method), long, w.free)
			w.marked("start", 1)
			require.NoError(t, w.Preempt(fc.FunctionCallID))
			w.marked("start", 2)
			w.release()
			v, err := w.get(fc)
			require.NoError(t, err)
			require.Equal(t, "slept", v)
			c := w.state(fc, fakemodal.Done)
			require.Equal(t, []string{"preempted", "success"}, outcomes(c), "the same call runs again")
			require.NotEqual(t, c.Attempts[0].TaskID, c.Attempts[1].TaskID, "in another container")
			require.False(t, c.Attempts[1].Started.Before(w.Containers()[0].Ended), "when the first one has ended")
			require.Equal(t, 1, w.count("exit"), "its exit hook ran")
			require.Error(t, w.Preempt(fc.FunctionCallID), "it does not run any more")
		})
	}
}

func TestPreemptKillsAfterItsGrace(t *testing.T) {
	const grace = 5 * time.Second // the container must be able to note within it that it was told
	w := newWorld(t, func(o *fakemodal.Options) { o.PreemptGrace = grace })
	fc := w.spawn(w.method("stubborn"), long, w.free)
	w.marked("start", 1)
	require.NoError(t, w.Preempt(fc.FunctionCallID))
	w.marked("start", 2)
	w.release()
	c := w.state(fc, fakemodal.Done)
	require.Equal(t, []string{"preempted", "success"}, outcomes(c))
	first := w.Containers()[0]
	require.Equal(t, 137, first.ExitCode)
	require.GreaterOrEqual(t, first.Ended.Sub(c.Attempts[0].Ended), grace)
	w.marked("ignored", 1)
}

func TestPreemptWithOverlap(t *testing.T) {
	w := newWorld(t, func(o *fakemodal.Options) { o.PreemptOverlap, o.PreemptGrace = true, long*time.Second })
	fc := w.spawn(w.method("stubborn"), long, w.free)
	w.marked("start", 1)
	require.NoError(t, w.Preempt(fc.FunctionCallID))
	w.marked("start", 2)
	require.Zero(t, w.Containers()[0].Ended, "it is in its grace still")
	w.release()
	c := w.state(fc, fakemodal.Done)
	require.Equal(t, []string{"preempted", "success"}, outcomes(c))
	require.NotEqual(t, c.Attempts[0].TaskID, c.Attempts[1].TaskID)
	w.marked("ignored", 1)
}

// TestRefuseReload: Modal's own code raises what it raises for a Volume with open files.
func TestRefuseReload(t *testing.T) {
	w := newWorld(t, func(o *fakemodal.Options) { o.Env["TESTAPP_MODELS"] = fakemodal.VolumesDir + "/testapp-models" })
	fault := w.RefuseReload(1)
	_, err := w.get(w.spawn(w.method("store"), "unet/a.safetensors", "weights"))
	require.ErrorContains(t, err, "there are open files preventing the operation")
	require.ErrorContains(t, err, "RuntimeError")
	require.Equal(t, 1, fault.Fired())
	w.run(w.method("store"), "unet/a.safetensors", "weights")
}

func TestKillContainer(t *testing.T) {
	w := newWorld(t)
	fc := w.spawn(w.method("sleep"), long, w.free)
	w.marked("start", 1)
	require.NoError(t, w.KillContainer(fc.FunctionCallID))
	w.marked("start", 2)
	w.release()
	_, err := w.get(fc)
	require.NoError(t, err)
	require.Equal(t, []string{"crashed", "success"}, outcomes(w.state(fc, fakemodal.Done)))
	require.Zero(t, w.count("KeyboardInterrupt"), "it had no notice")
	require.Zero(t, w.count("exit"))
	require.Equal(t, "Runner failed with exit code: 137", w.Containers()[0].Why)
}

func TestEnds(t *testing.T) {
	w := newWorld(t)
	sleep := w.method("sleep")
	for _, c := range []struct {
		do   func(id string) error
		want string
		as   any
	}{
		{w.InternalFailure, "internal_failure", new(modal.InternalFailure)},
		{w.TimeOut, "timeout", new(modal.FunctionTimeoutError)},
		{func(id string) error { return w.End(id, pb.GenericResult_GENERIC_STATUS_TERMINATED, "") }, "terminated", new(modal.RemoteError)},
		{func(id string) error {
			return w.End(id, pb.GenericResult_GENERIC_STATUS_MEMORY_MANAGER_EVICTION, "evicted")
		}, "memory_manager_eviction", new(modal.RemoteError)},
	} {
		fc := w.spawn(sleep, long)
		w.state(fc, fakemodal.Running)
		require.NoError(t, c.do(fc.FunctionCallID))
		_, err := w.get(fc)
		require.ErrorAs(t, err, c.as)
		require.Equal(t, c.want, w.state(fc, fakemodal.Done).Outcome)
		require.Error(t, c.do(fc.FunctionCallID), "twice is once too often")
	}
}

func TestExpired(t *testing.T) {
	w := newWorld(t)
	fc := w.spawn(w.method("echo"), 1)
	require.Error(t, w.Expire(fc.FunctionCallID), "only a result can expire")
	w.state(fc, fakemodal.Done)
	require.NoError(t, w.Expire(fc.FunctionCallID))
	wait := 200 * time.Millisecond
	_, err := fc.Get(testContext(t), &modal.FunctionCallGetParams{Timeout: &wait})
	var running modal.TimeoutError
	require.ErrorAs(t, err, &running, "to the SDK it looks as though it were running: facts/modal.md trap 2")
	out, err := w.raw().FunctionGetOutputs(testContext(t), pb.FunctionGetOutputsRequest_builder{FunctionCallId: fc.FunctionCallID, Timeout: 1}.Build())
	require.NoError(t, err)
	require.Empty(t, out.GetOutputs())
	require.Zero(t, out.GetNumUnfinishedInputs())
}

func TestForgotten(t *testing.T) {
	w := newWorld(t)
	fc := w.spawn(w.method("sleep"), long)
	require.NoError(t, w.Forget(fc.FunctionCallID))
	_, err := w.get(fc)
	require.Equal(t, codes.NotFound, status.Code(err))
}

func TestLostBlob(t *testing.T) {
	w := newWorld(t)
	small := w.spawn(w.method("echo"), 1)
	w.state(small, fakemodal.Done)
	require.Error(t, w.LoseBlob(small.FunctionCallID), "a small result is in no blob")
	fc := w.spawn(w.method("big"), 100_000)
	w.state(fc, fakemodal.Done)
	require.NoError(t, w.LoseBlob(fc.FunctionCallID))
	_, err := w.get(fc)
	require.Equal(t, codes.NotFound, status.Code(err))
}

func TestFailStart(t *testing.T) {
	w := newWorld(t)
	fault := w.FailStart(1, "RuntimeError('no GPU')")
	fc := w.spawn(w.method("echo"), 1)
	_, err := w.get(fc)
	var remote modal.RemoteError
	require.ErrorAs(t, err, &remote)
	require.Equal(t, "RuntimeError('no GPU')", remote.Exception)
	c := w.state(fc, fakemodal.Done)
	require.Equal(t, "init_failure", c.Outcome)
	require.Empty(t, c.Attempts, "the method never ran")
	require.Equal(t, 1, fault.Fired())
	w.run(w.method("echo"), 2)
}

func TestEnterHookFails(t *testing.T) {
	w := newWorld(t)
	w.SetEnv("TESTAPP_FAIL_START", "1")
	f := w.method("echo")
	first, second, third := w.spawn(f, 1), w.spawn(f, 2), w.spawn(f, 3)
	for _, fc := range []*modal.FunctionCall{first, second, third} {
		_, err := w.get(fc)
		var remote modal.RemoteError
		require.ErrorAs(t, err, &remote)
		require.Equal(t, "RuntimeError('no engine')", remote.Exception)
		require.Equal(t, "init_failure", w.state(fc, fakemodal.Done).Outcome)
	}
	out, err := w.raw().FunctionGetOutputs(testContext(t), pb.FunctionGetOutputsRequest_builder{FunctionCallId: first.FunctionCallID}.Build())
	require.NoError(t, err)
	require.Contains(t, out.GetOutputs()[0].GetResult().GetTraceback(), "in before")
	w.SetEnv("TESTAPP_FAIL_START", "")
	require.NoError(t, w.WaitContainers(testContext(t), func(all []fakemodal.Container) bool {
		return !slices.ContainsFunc(all, func(c fakemodal.Container) bool { return c.Ended.IsZero() })
	}))
	w.run(f, 4)
}

func TestEnterHookFailsAndIsTriedAgain(t *testing.T) {
	w := newWorld(t, func(o *fakemodal.Options) { o.StartRetries = -1 })
	fault := w.FailStart(2, "RuntimeError('not yet')")
	fc := w.spawn(w.method("echo"), 1)
	_, err := w.get(fc)
	require.NoError(t, err)
	require.Equal(t, 2, fault.Fired())
	require.GreaterOrEqual(t, len(w.Containers()), 3)
}

func TestStartupTimeout(t *testing.T) {
	w := newWorld(t, func(o *fakemodal.Options) { o.Env["TESTAPP_SLOW_IMPORT"] = "60" })
	fc := w.spawn(w.function("hasty"))
	_, err := w.get(fc)
	require.ErrorContains(t, err, "startup timeout of 1s")
	require.Equal(t, "init_failure", w.state(fc, fakemodal.Done).Outcome)
}

func TestBlobsFail(t *testing.T) {
	w := newWorld(t)
	fc := w.spawn(w.method("big"), 1<<20)
	w.state(fc, fakemodal.Done)
	for _, code := range []codes.Code{codes.DataLoss, codes.Unavailable} {
		fault := w.Inject(fakemodal.Rule{Methods: []string{"GET"}, Times: 1, Code: code})
		v, err := w.get(fc)
		require.NoError(t, err, "the SDK tries again")
		require.Len(t, v, 1<<20)
		require.Equal(t, 1, fault.Fired())
	}
	fault := w.Inject(fakemodal.Rule{Methods: []string{"GET"}, Code: codes.DataLoss})
	_, err := w.get(fc)
	require.ErrorContains(t, err, "unexpected EOF")
	require.Greater(t, fault.Fired(), 1)
}

func TestThrottle(t *testing.T) {
	w := newWorld(t)
	f := w.method("echo")
	fault := w.Throttle(1, 0)
	_, err := f.Spawn(testContext(t), []any{1}, nil)
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "without advice the SDK gives up at once")
	require.Equal(t, 1, fault.Fired())
	require.Empty(t, w.Calls())

	fault = w.Throttle(2, 100*time.Millisecond)
	w.run(f, 2)
	require.Equal(t, 2, fault.Fired(), "with advice it comes again")

	fault = w.Throttle(0, 500*time.Millisecond)
	start := time.Now()
	_, err = f.Spawn(testContext(t), []any{3}, nil)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.Greater(t, time.Since(start), maxThrottleWait-time.Second, "until it would be over with the next wait")
	fault.Clear()
	w.run(f, 4)
}

func TestRefusedToken(t *testing.T) {
	w := newWorld(t)
	f := w.method("echo")
	fault := w.RefuseToken()
	_, err := f.Spawn(testContext(t), []any{1}, nil)
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	require.Equal(t, 1, fault.Fired())
	fault.Clear()
	w.run(f, 1)
}

func TestUnavailable(t *testing.T) {
	w := newWorld(t)
	f := w.method("sleep")
	fc := w.spawn(f, long, w.free)
	w.marked("start", 1)
	fault := w.Unavailable()
	_, err := f.Spawn(testContext(t), []any{1}, nil)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Positive(t, fault.Fired())
	w.release()
	require.Equal(t, "success", w.state(fc, fakemodal.Done).Outcome, "containers go on")
	fault.Clear()
	require.Eventually(t, func() bool {
		v, err := fc.Get(testContext(t), nil)
		return err == nil && v == "slept"
	}, 2*time.Minute, 100*time.Millisecond, "the SDK connects again by itself")
}

func TestSlowRequests(t *testing.T) {
	w := newWorld(t)
	f := w.method("echo")
	fault := w.Inject(fakemodal.Rule{Methods: []string{"FunctionMap"}, Times: 1, Delay: 300 * time.Millisecond})
	start := time.Now()
	fc := w.spawn(f, 1)
	require.GreaterOrEqual(t, time.Since(start), 300*time.Millisecond)
	require.Equal(t, 1, fault.Fired())
	_, err := w.get(fc)
	require.NoError(t, err)
}

// A client dies between the moment at which its call exists and the moment at which it would know.
func TestAnswerHeldBack(t *testing.T) {
	w := newWorld(t)
	f := w.method("echo")
	fault := w.HoldAnswer(1, "FunctionMap")
	ctx, cancel := context.WithCancel(testContext(t))
	failed := make(chan error, 1)
	go func() {
		_, err := f.Spawn(ctx, []any{1}, nil)
		failed <- err
	}()
	require.NoError(t, fault.Wait(testContext(t)))
	c, err := w.Wait(testContext(t), func(c fakemodal.Call) bool { return c.State == fakemodal.Done })
	require.NoError(t, err)
	require.Equal(t, "success", c.Outcome)
	cancel()
	require.Error(t, <-failed)
	require.Len(t, w.Calls(), 1)
}

// The SDK's own retry of one RPC must not make a second call.
func TestRetriedRequestMakesOneCall(t *testing.T) {
	w := newWorld(t)
	fault := w.Inject(fakemodal.Rule{Methods: []string{"FunctionMap"}, From: fakemodal.Clients, Times: 1, Late: true, Code: codes.Unavailable})
	fc := w.spawn(w.method("echo"), 1)
	require.Equal(t, 1, fault.Fired())
	require.Equal(t, 2, w.Count("FunctionMap"))
	require.Len(t, w.Calls(), 1)
	require.Equal(t, w.Calls()[0].ID, fc.FunctionCallID)
}

func TestQueueAndDictFailInContainers(t *testing.T) {
	w := newWorld(t)
	queue := w.Inject(fakemodal.Rule{Methods: []string{"QueuePut"}, From: fakemodal.Containers, Code: codes.PermissionDenied, Message: "no queue today"})
	_, err := w.get(w.spawn(w.method("tell"), "p", 1))
	require.ErrorContains(t, err, "no queue today")
	require.Positive(t, queue.Fired())

	queue.Clear()
	queue = w.Inject(fakemodal.Rule{Methods: []string{"QueuePut"}, From: fakemodal.Clients, Code: codes.PermissionDenied})
	w.run(w.method("tell"), "p", 1)
	require.Zero(t, queue.Fired(), "a rule for clients is none for containers")

	dict := w.Inject(fakemodal.Rule{Methods: []string{"DictUpdate"}, From: fakemodal.Containers, Times: 1, Code: codes.Unavailable})
	require.Equal(t, []any{true, true}, w.run(w.method("claim"), "k"), "the SDK in the container retries")
	require.Equal(t, 1, dict.Fired())

	hang := w.Inject(fakemodal.Rule{Methods: []string{"DictGet"}, From: fakemodal.Containers, Times: 1, Hang: true})
	fc := w.spawn(w.method("claim"), "l")
	require.NoError(t, hang.Wait(testContext(t)))
	require.Equal(t, fakemodal.Running, w.state(fc, fakemodal.Running).State)
	hang.Clear()
	_, err = w.get(fc)
	require.NoError(t, err)
}
