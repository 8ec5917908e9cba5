package faults

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

// atModal is comfyd on a fake Modal with the product's own app and a real ComfyUI in its containers.
func (w *world) atModal(vars ...string) (*fakemodal.Server, *process) {
	w.t.Helper()
	m := fakemodal.Product(w.t, func(o *fakemodal.Options) { o.PreemptGrace = 2 * time.Second })
	w.gpu = calls{w.t, m}
	all := append([]string{"COMFYD_BACKEND=modal"}, vars...)
	for k, v := range m.Env() {
		all = append(all, k+"="+v)
	}
	return m, w.serve(all...)
}

// calls counts the executions of prompts at Modal.
type calls struct {
	t *testing.T
	*fakemodal.Server
}

func (c calls) runs(mark string) int {
	n := 0
	for _, call := range c.Calls() {
		if call.Method != "run" {
			continue
		}
		input, _, err := c.Input(call.ID)
		require.NoError(c.t, err)
		if strings.Contains(string(input), mark) {
			n += len(call.Attempts)
		}
	}
	return n
}

// executed is how many calls of prompts Modal was given, and how often one was executed.
func executed(m *fakemodal.Server) (calls []fakemodal.Call, times int) {
	for _, c := range m.Calls() {
		if c.Method == "run" {
			calls = append(calls, c)
			times += len(c.Attempts)
		}
	}
	return calls, times
}

// TestF03KilledInMidCall kills comfyd while a container at Modal works: the next start goes on with the same call.
func TestF03KilledInMidCall(t *testing.T) {
	if testing.Short() {
		t.Skip("a container with a real ComfyUI: the long form has it")
	}
	for name, s := range map[string]syscall.Signal{"kill -9": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m, p := w.atModal()
			id := w.submit(slowOf(t, 4096))
			w.running(id)
			killed := time.Now()
			p.signal(s)
			w.fired(w.gone(), name+" of comfyd while a container worked")
			p.start()
			on := w.follows(id, killed)
			w.completes(id, 1)
			w.recovered("all-in-one at Modal restarted after "+name, killed, on)
			all, times := executed(m)
			require.Len(t, all, 1)
			require.Equal(t, 1, times, "the GPU runs once")
			w.check()
		})
	}
}

// TestF03KilledBeforeTheCallIDIsKnown kills comfyd when Modal has taken the call and nobody knows its ID: the next one
// asks the app's ledger.
func TestF03KilledBeforeTheCallIDIsKnown(t *testing.T) {
	if testing.Short() {
		t.Skip("a container with a real ComfyUI: the long form has it")
	}
	w := newWorld(t)
	m, p := w.atModal()
	w.finish(w.submit(noise(1))) // a container is up
	_, before := executed(m)
	held := m.HoldAnswer(1, "FunctionMap")
	id := w.submit(slow(t))
	ctx, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	require.NoError(t, held.Wait(ctx))
	p.kill()
	w.fired(w.gone(), "kill -9 of comfyd between Modal's taking a call and its ID")
	held.Clear()
	p.start()
	w.completes(id, 1)
	_, times := executed(m)
	require.Equal(t, 1, times-before)
	w.check()
}

// TestBigResultAtModal: a result of fifty megabytes passes through comfyd to the store without being held in memory. It is
// no fault; it needs the same processes.
func TestBigResultAtModal(t *testing.T) {
	if testing.Short() {
		t.Skip("a container with a real ComfyUI: the long form has it")
	}
	w := newWorld(t)
	_, p := w.atModal()
	w.finish(w.submit(noise(1)))
	before := p.resident()
	var out map[string]any
	most := p.most(func() {
		id := w.submit(strings.ReplaceAll(noise(7), `"width":64,"height":64`, `"width":5632,"height":5632`))
		require.Eventually(t, func() bool {
			e := w.alice.Do(t.Context(), "GET", "/status/"+id+"?output=url", id, nil, nil)
			out = e.Body
			return ended(e.State())
		}, 3*time.Minute, 20*time.Millisecond)
	})
	require.Equal(t, "COMPLETED", out["status"], "%v", out)
	size := out["output"].(map[string]any)["images"].([]any)[0].(map[string]any)["size_bytes"].(float64)
	require.Greater(t, size, 50e6)
	t.Logf("a result of %.0f MB: comfyd grew from %d MB to %d MB at most", size/1e6, before/1e6, most/1e6)
	require.Less(t, most-before, int64(64e6))
	w.fired(true, "a result of fifty megabytes")
	w.check()
}

// TestF18ContainerTakenAway preempts and kills the container that runs the prompt: Modal runs the call again, and the
// client is told so.
func TestF18ContainerTakenAway(t *testing.T) {
	if testing.Short() {
		t.Skip("containers with a real ComfyUI: the long form has it")
	}
	w := newWorld(t)
	m, _ := w.atModal()
	for name, take := range map[string]func(string) error{"preempted": m.Preempt, "killed": m.KillContainer, "lost by Modal itself": m.InternalFailure} {
		before, _ := executed(m)
		id := w.submit(slow(t))
		w.running(id)
		all, _ := executed(m)
		require.Len(t, all, len(before)+1)
		taken := time.Now()
		require.NoError(t, take(all[len(before)].ID))
		w.fired(true, "the container was "+name)
		on := w.attempted(id, 2, taken)
		w.completes(id, 2)
		w.recovered("container "+name+" (a new one takes most of the time)", taken, on)
	}
	w.check()
}

// TestF18ColdStartFails: no container comes up; the job waits, and says in the end what the container's log said.
func TestF18ColdStartFails(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes most of a minute: the long form has it")
	}
	w := newWorld(t)
	m, _ := w.atModal("COMFYD_START_TIMEOUT=40s")
	f := m.FailStart(100, "StartFailed('ComfyUI did not start: no CUDA device')")
	id := w.submit(noise(1))
	status := w.fails(id, "backend_unavailable")
	w.fired(f.Fired() > 0, "containers failed to start")
	require.Contains(t, status["error"], "no CUDA device")
	require.NotContains(t, status["error"], "Traceback")
	w.check()
}
