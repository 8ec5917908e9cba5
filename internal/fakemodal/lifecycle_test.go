package fakemodal_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

func TestContainerIsReusedAndScaledDown(t *testing.T) {
	w := newWorld(t)
	f := w.method("echo")
	for i := range 3 {
		require.EqualValues(t, i+1, w.run(f, i).(map[any]any)["served"])
	}
	require.Equal(t, []string{"enter before", "enter after"}, w.lines())

	// A window that can be waited for is too short to count on two calls within it: a variant has it.
	window := 2 * time.Second
	f = w.method("echo", &modal.ClsWithOptionsParams{ScaledownWindow: &window})
	last := w.spawn(f, 4)
	require.NoError(t, w.WaitContainers(testContext(t), func(all []fakemodal.Container) bool { return len(all) == 2 && !all[1].Ended.IsZero() }))
	c := w.Containers()[1]
	require.GreaterOrEqual(t, c.Ended.Sub(w.state(last, fakemodal.Done).Ended), window)
	require.Zero(t, c.ExitCode)
	require.Equal(t, 1, c.Served)
	require.Equal(t, "idle for 2s", c.Why)
	require.Equal(t, 1, w.count("exit"), "exit hooks run")
	require.EqualValues(t, 1, w.run(f, 5).(map[any]any)["served"], "the next call gets a new one")
	require.Equal(t, 3, w.Containers()[0].Served)
}

func TestBacklogIsFIFOAndLimited(t *testing.T) {
	w := newWorld(t)
	sleep := w.method("sleep")
	var calls []*modal.FunctionCall
	for range 6 {
		calls = append(calls, w.spawn(sleep, long, w.free))
	}
	w.marked("start", 2) // none ends before all are there and as many run as may
	w.release()
	var last time.Time
	for _, fc := range calls {
		c := w.state(fc, fakemodal.Done)
		require.Equal(t, "success", c.Outcome)
		require.False(t, c.Attempts[0].Started.Before(last), "the oldest starts first")
		last = c.Attempts[0].Started
	}
	require.Len(t, w.Containers(), 2, "max_containers")
}

func TestStopFetchingInputs(t *testing.T) {
	w := newWorld(t)
	f := w.method("last")
	first := w.run(f)
	require.NoError(t, w.WaitContainers(testContext(t), func(all []fakemodal.Container) bool { return !all[0].Ended.IsZero() }))
	require.Equal(t, 1, w.count("exit"))
	require.NotEqual(t, first, w.run(f), "the next call runs in a new container")
}

func TestSnapshot(t *testing.T) {
	w := newWorld(t, func(o *fakemodal.Options) { o.Snapshots = true })
	got := w.run(w.method("echo"), 1).(map[any]any)
	require.EqualValues(t, 1, got["value"])
	require.Equal(t, []string{"enter before", "enter after"}, w.lines())
	require.Equal(t, 1, w.Count("ContainerCheckpoint"), "it went through Modal's snapshot code")
}

func TestMinContainers(t *testing.T) {
	w := newWorld(t)
	one := uint32(1)
	_, err := w.function("peek").UpdateAutoscaler(testContext(t), &modal.FunctionUpdateAutoscalerParams{MinContainers: &one})
	require.NoError(t, err)
	require.NoError(t, w.WaitContainers(testContext(t), func(all []fakemodal.Container) bool { return len(all) == 1 && !all[0].Ready.IsZero() }))
	require.Empty(t, w.Calls(), "nobody has called")
	w.run(w.function("peek"))
	require.Len(t, w.Containers(), 1, "the call finds it warm")
}

func TestCancelQueued(t *testing.T) {
	w := newWorld(t)
	sleep := w.method("sleep")
	running := []*modal.FunctionCall{w.spawn(sleep, long), w.spawn(sleep, long)}
	for _, fc := range running {
		w.state(fc, fakemodal.Running)
	}
	queued := w.spawn(sleep, long)
	require.NoError(t, queued.Cancel(testContext(t), nil))
	_, err := w.get(queued)
	var remote modal.RemoteError
	require.ErrorAs(t, err, &remote)
	c := w.state(queued, fakemodal.Done)
	require.Equal(t, "terminated", c.Outcome)
	require.True(t, c.Canceled)
	require.Empty(t, c.Attempts, "it never ran")
	require.NoError(t, queued.Cancel(testContext(t), nil), "again is no error")
}

func TestCancelRunning(t *testing.T) {
	for method, raised := range map[string]string{"sleep": "InputCancellation", "sleep_async": "CancelledError"} {
		t.Run(method, func(t *testing.T) {
			w := newWorld(t)
			fc := w.spawn(w.method(method), long)
			w.marked("start", 1)
			require.NoError(t, fc.Cancel(testContext(t), nil))
			_, err := w.get(fc)
			var remote modal.RemoteError
			require.ErrorAs(t, err, &remote)
			require.Empty(t, remote.Exception, "a cancelled call has no text")
			require.Equal(t, []string{"terminated"}, outcomes(w.state(fc, fakemodal.Done)))
			require.Equal(t, 1, w.count(raised))
			w.run(w.method("echo"), 1)
			require.Len(t, w.Containers(), 1, "the container lives on")
		})
	}
}

func TestCancelThatIsIgnored(t *testing.T) {
	w := newWorld(t, func(o *fakemodal.Options) { o.CancelGrace = 8 * time.Second }) // for it to note that it was told
	fc := w.spawn(w.method("stubborn"), long)
	w.marked("start", 1)
	require.NoError(t, fc.Cancel(testContext(t), nil))
	w.marked("ignored", 1)
	require.Equal(t, "terminated", w.state(fc, fakemodal.Done).Outcome)
	require.Equal(t, "its input did not stop when told", w.Containers()[0].Why)
}

func TestCancelWithContainer(t *testing.T) {
	w := newWorld(t)
	fc := w.spawn(w.method("stubborn"), long)
	w.marked("start", 1)
	require.NoError(t, fc.Cancel(testContext(t), &modal.FunctionCallCancelParams{TerminateContainers: true}))
	require.Equal(t, "terminated", w.state(fc, fakemodal.Done).Outcome)
	require.Zero(t, w.count("ignored"))
}

func TestNoProcessIsLeft(t *testing.T) {
	w := newWorld(t)
	pid := int(w.run(w.method("breed")).(uint64))
	require.NoError(t, syscall.Kill(pid, 0), "it lives")
	fc := w.spawn(w.method("sleep"), long)
	w.marked("start", 1)
	require.NoError(t, w.KillContainer(fc.FunctionCallID))
	require.NoError(t, w.WaitContainers(testContext(t), func(all []fakemodal.Container) bool { return !all[0].Ended.IsZero() }))
	require.Eventually(t, func() bool { return gone(pid) }, time.Minute, 10*time.Millisecond, "a process in a session of its own dies with its container")

	again := int(w.run(w.method("breed")).(uint64))
	w.Stop()
	require.Eventually(t, func() bool { return gone(again) }, time.Minute, 10*time.Millisecond, "and with the server")
}

// A server that is killed, as a test binary may be, takes its containers with it.
func TestNoProcessIsLeftOfAKilledServer(t *testing.T) {
	w := newWorld(t)
	w.Stop()
	child := exec.CommandContext(testContext(t), os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), "FAKEMODAL_TEST_DIR="+w.opts.Dir, "FAKEMODAL_TEST_ADDR="+w.opts.Addr, "TMPDIR="+t.TempDir())
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid := int(w.run(w.method("breed")).(uint64))
	require.NoError(t, syscall.Kill(pid, 0), "it lives")
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	require.Eventually(t, func() bool { return gone(pid) }, time.Minute, 10*time.Millisecond)
}

func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || len(stat) == 0
}
