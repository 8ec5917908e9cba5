package faults

import (
	"context"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// gone tells whether the API of a process answers nothing any more.
func (w *world) gone() bool {
	e := (&Client{URL: w.alice.URL, History: &History{}}).Do(context.Background(), http.MethodGet, "/healthz", "", nil, nil)
	return e.Err != ""
}

// TestF03AllInOneKilled kills comfyd while the real ComfyUI works: the next start goes on with the same prompt.
func TestF03AllInOneKilled(t *testing.T) {
	beside(t)
	for name, s := range map[string]syscall.Signal{"kill -9": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && s == syscall.SIGTERM {
				t.Skip("the long form has it")
			}
			w, d := newWorld(t), newDoor(t)
			w.gpu = d
			p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+d.URL)
			id := w.submit(slow(t))
			w.running(id)
			killed := time.Now()
			p.signal(s)
			w.fired(w.gone(), name+" of comfyd while ComfyUI worked")
			p.start()
			on := w.follows(id, killed)
			w.completes(id, 1)
			w.recovered("all-in-one restarted after "+name, killed, on)
			w.check()
		})
	}
}

// pair is an API and workers that meet at a Temporal server of their own.
func (w *world) pair(temporal string, urls string, more ...string) (api *process, worker func(name, temporal string) *process) {
	w.t.Helper()
	vars := w.apart(append([]string{"COMFYD_BACKEND=url", "COMFYUI_URLS=" + urls}, more...)...)
	api = w.comfyd("api", "api", append(vars, "TEMPORAL_ADDRESS="+temporal)...)
	api.launch()
	return api, func(name, temporal string) *process {
		p := w.comfyd("worker", name, append(vars, "TEMPORAL_ADDRESS="+temporal)...)
		p.launch()
		api.start2(w)
		return p
	}
}

// start2 waits until the API is ready: it sees what the workers publish.
func (p *process) start2(w *world) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		return (&Client{URL: p.url, History: &History{}}).Do(context.Background(), http.MethodGet, "/readyz", "", nil, nil).Code == http.StatusOK
	}, 5*time.Minute, 50*time.Millisecond, "the API sees a worker's backend")
}

// TestF03WorkerKilled kills the worker alone, and another one, or its own next start, goes on with the prompt.
func TestF03WorkerKilled(t *testing.T) {
	beside(t)
	for _, again := range []bool{true, false} {
		name := map[bool]string{true: "it starts again", false: "it is gone for good, another is alive"}[again]
		t.Run(name, func(t *testing.T) {
			w, d := newWorld(t), newDoor(t)
			w.gpu = d
			w.temporald()
			_, worker := w.pair(w.temporal, d.URL)
			first := worker("worker-1", w.temporal)
			id := w.submit(slowOf(t, 3072))
			w.running(id)
			if !again {
				worker("worker-2", w.temporal)
			}
			require.Equal(t, "RUNNING", w.status(id).State())
			killed := time.Now()
			first.kill()
			w.fired(w.status(id).State() == "RUNNING", "kill -9 of the worker in mid-job")
			if again {
				first.launch()
			}
			on := w.follows(id, killed)
			w.completes(id, 1)
			w.recovered("worker killed, "+name, killed, on)
			w.check()
		})
	}
}

// TestF03CanceledBeforeAnybodyFollowsAgain: comfyd dies, comes back, and the job is canceled before it has found its
// prompt again. Nothing runs on after the end of its job.
func TestF03CanceledBeforeAnybodyFollowsAgain(t *testing.T) {
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	gate := s.Hold("EmptyImage")
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL)
	id := w.submit(noise(1))
	gate.Reached()
	p.kill()
	w.fired(w.gone(), "kill -9 of comfyd while ComfyUI worked")
	p.start()
	e := w.alice.Do(t.Context(), "POST", "/cancel/"+id, id, nil, nil)
	require.Equal(t, 202, e.Code, "%v", e.Body)
	require.Eventually(t, func() bool { return len(s.Interrupts()) > 0 }, 5*time.Minute, 20*time.Millisecond, "the prompt is interrupted")
	gate.Open()
	w.fails(id, "canceled")
	require.Equal(t, 1, s.TotalRuns())
	w.check()
}

// TestF04KilledBeforeUpload kills the worker when the GPU is done and the first output is being fetched: what was made
// is fetched by the next one, and nothing is made again.
func TestF04KilledBeforeUpload(t *testing.T) {
	w, d := newWorld(t), newDoor(t)
	w.gpu = d
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+d.URL)
	view := d.hold("/view")
	id := w.submit(noise(int(time.Now().UnixNano() % 1e9)))
	view.at(t)
	w.phase(id, func(e *Event) bool { return e.Body["phase"] == "collecting" }, "it collects")
	killed := time.Now()
	p.kill()
	w.fired(w.gone(), "kill -9 of comfyd between the GPU's end and the upload")
	view.let()
	p.start()
	w.completes(id, 1)
	w.recovered("all-in-one killed before the upload", killed, time.Since(killed))
	w.check()
}

// TestF16WorkerPaused stops a worker with SIGSTOP for longer than its heartbeats may be away: another goes on, and what
// the first one does when it wakes harms nothing.
func TestF16WorkerPaused(t *testing.T) {
	pause := time.Minute
	if testing.Short() {
		pause = 10 * time.Second
	}
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	gate := s.Hold("EmptyImage")
	w.temporald()
	_, worker := w.pair(w.temporal, s.URL)
	first := worker("worker-1", w.temporal)
	id := w.submit(noise(1))
	gate.Reached()
	worker("worker-2", w.temporal)
	stopped := time.Now()
	first.pause()
	on := w.follows(id, stopped)
	t.Logf("RECOVERY worker paused, another is alive: on after %.1f s", on.Seconds())
	<-time.After(time.Until(stopped.Add(pause)))
	w.fired(first.paused(), fmt.Sprintf("the worker was stopped for %s", pause))
	require.Equal(t, "RUNNING", w.status(id).State())
	first.resume()
	// It wakes, learns that it has lost the prompt, and leaves it alone.
	w.mustNot(s, 8*time.Second)
	gate.Open()
	w.completes(id, 1)
	require.Equal(t, 1, s.TotalRuns())
	require.Empty(t, s.Interrupts())
	second := w.submit(noise(2)) // both workers are well
	w.completes(second, 1)
	w.check()
}

// mustNot watches that nobody interrupts the prompt, nor gives the GPU another one.
func (w *world) mustNot(s *fakecomfy.Server, long time.Duration) {
	w.t.Helper()
	require.Never(w.t, func() bool { return len(s.Interrupts()) > 0 || len(s.Posted()) > 1 }, long, 100*time.Millisecond,
		"the prompt is left alone")
}
