package faults

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// serveLocal starts comfyd with a real ComfyUI of its own.
func (w *world) serveLocal(vars ...string) *process {
	w.t.Helper()
	dir := os.Getenv("COMFYD_TEST_COMFYUI_DIR")
	if dir == "" {
		w.t.Skip("COMFYD_TEST_COMFYUI_DIR is not set: make test prepares a real ComfyUI and sets it")
	}
	w.local, w.allowed = true, []string{"home", "tmp"} // ComfyUI is anybody's code
	return w.serve(append([]string{"COMFYD_BACKEND=local", "COMFYUI_DIR=" + dir}, vars...)...)
}

// comfyUI is the process of comfyd's own ComfyUI, as the data folder's state file names it.
func (w *world) comfyUI() int {
	w.t.Helper()
	var state struct{ PID int }
	found, err := filepath.Glob(filepath.Join(w.data("serve"), "*", "state.json"))
	require.NoError(w.t, err)
	require.Len(w.t, found, 1)
	raw, err := os.ReadFile(found[0])
	require.NoError(w.t, err)
	require.NoError(w.t, json.Unmarshal(raw, &state))
	require.NotZero(w.t, state.PID)
	return state.PID
}

// attempted waits until a job runs in its n-th attempt and returns how long after a moment.
func (w *world) attempted(id string, n float64, moment time.Time) time.Duration {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		e := w.status(id)
		return ended(e.State()) || (e.Body["attempts"] == n && e.Body["phase"] == "running")
	}, 3*time.Minute, 50*time.Millisecond, "job %s runs again", id)
	return time.Since(moment)
}

// TestF06ComfyUIKilled kills the real ComfyUI that comfyd runs: it is started again, and the job with it.
func TestF06ComfyUIKilled(t *testing.T) {
	w := newWorld(t)
	w.serveLocal()
	id := w.submit(slow(t))
	w.running(id)
	pid := w.comfyUI()
	killed := time.Now()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	on := w.attempted(id, 2, killed)
	w.fired(w.comfyUI() != pid, "kill -9 of ComfyUI in mid-job")
	w.completes(id, 2)
	w.recovered("ComfyUI killed, started again by comfyd (it takes most of the time itself)", killed, on)
	w.check()
}

// TestF06LostThreeTimes kills ComfyUI each time that the job runs: after the third it fails, and says so readably.
func TestF06LostThreeTimes(t *testing.T) {
	if testing.Short() {
		t.Skip("workflows has it in small: the long form has it")
	}
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	s.Hold("EmptyImage")
	w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL)
	id := w.submit(noise(1))
	for n := range 3 {
		require.Eventually(t, func() bool { return s.TotalRuns() == n+1 }, 5*time.Minute, 10*time.Millisecond)
		w.phase(id, func(e *Event) bool { return e.Body["phase"] == "running" && e.Body["attempts"] == float64(n+1) }, "it runs")
		s.Restart()
	}
	w.fired(s.TotalRuns() == 3, "ComfyUI was killed three times in mid-job")
	status := w.fails(id, "backend_lost")
	require.EqualValues(t, 3, status["attempts"])
	require.NotContains(t, status["error"], "rpc error")
	w.check()
}

// TestF06AnotherServer kills one of two servers for good: the job goes on at the other one.
func TestF06AnotherServer(t *testing.T) {
	w, one, two := newWorld(t), fakecomfy.New(t), fakecomfy.New(t)
	w.gpu = doubles{one, two}
	held := map[*fakecomfy.Server]*fakecomfy.Gate{one: one.Hold("EmptyImage"), two: two.Hold("EmptyImage")}
	w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+one.URL+","+two.URL)
	id := w.submit(noise(1))
	require.Eventually(t, func() bool { return one.TotalRuns()+two.TotalRuns() == 1 }, 5*time.Minute, 10*time.Millisecond)
	has, other := one, two
	if two.TotalRuns() == 1 {
		has, other = two, one
	}
	w.phase(id, func(e *Event) bool { return e.Body["phase"] == "running" }, "it runs")
	held[other].Open()
	killed := time.Now()
	has.Kill()
	w.fired(has.TotalRuns() == 1, "the server with the prompt was killed for good")
	on := w.attempted(id, 2, killed)
	w.completes(id, 2)
	w.recovered("ComfyUI gone for good, another server is there", killed, on)
	require.Equal(t, 1, other.TotalRuns())
	has.Start()
	w.check()
}

// TestF07QueueWiped restarts ComfyUI with an empty queue: what ran is charged, what waited is not lost, and an unknown
// prompt is never taken for a finished one.
func TestF07QueueWiped(t *testing.T) {
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	gate := s.Hold("EmptyImage")
	w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL)
	ids := []string{w.submit(noise(1))}
	gate.Reached()
	w.phase(ids[0], func(e *Event) bool { return e.Body["phase"] == "running" }, "it runs")
	for i := range 4 {
		ids = append(ids, w.submit(noise(i+2)))
	}
	require.Eventually(t, func() bool { return s.Waiting() > 0 }, 5*time.Minute, 10*time.Millisecond)
	waiting := s.Waiting()
	s.Restart()
	w.fired(s.TotalRuns() >= 1 && waiting > 0, fmt.Sprintf("ComfyUI restarted with one prompt running and %d waiting", waiting))
	gate.Open()
	wiped := time.Now()
	w.completes(ids[0], 2)
	w.recovered("ComfyUI restarted, its queue wiped", wiped, time.Since(wiped))
	for _, id := range ids[1:] {
		require.Equal(t, "COMPLETED", w.finish(id)["status"])
	}
	require.Equal(t, 6, s.TotalRuns(), "the one that ran ran twice, the others once")
	w.check()
}

// TestF07EverythingKilled kills comfyd and the real ComfyUI at once.
func TestF07EverythingKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("two starts of a real ComfyUI: the long form has it")
	}
	w := newWorld(t)
	p := w.serveLocal()
	running := w.submit(slow(t))
	waiting := w.submit(noise(int(time.Now().UnixNano() % 1e9)))
	w.running(running)
	pid := w.comfyUI()
	killed := time.Now()
	p.kill()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	w.fired(w.gone(), "kill -9 of comfyd and ComfyUI at once")
	p.start()
	on := w.attempted(running, 2, killed)
	w.completes(running, 2)
	require.Equal(t, "COMPLETED", w.finish(waiting)["status"])
	w.recovered("comfyd and its ComfyUI killed at once", killed, on)
	w.check()
}

// TestF03LocalKilled kills comfyd alone: its ComfyUI works on, and the next start adopts it.
func TestF03LocalKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("a start of a real ComfyUI: the long form has it")
	}
	w := newWorld(t)
	p := w.serveLocal()
	id := w.submit(slow(t))
	w.running(id)
	pid := w.comfyUI()
	killed := time.Now()
	p.kill()
	w.fired(w.gone(), "kill -9 of comfyd alone")
	p.start()
	require.Equal(t, pid, w.comfyUI(), "adopted, not started anew")
	on := w.follows(id, killed)
	w.completes(id, 1)
	w.recovered("all-in-one with a ComfyUI of its own killed, ComfyUI lives", killed, on)
	w.check()
	p.signal(syscall.SIGTERM)
	require.Eventually(t, func() bool { return dead(pid) }, 2*time.Minute, 50*time.Millisecond, "it stops with us")
}

// TestF03LocalStopped: comfyd stops its ComfyUI with itself, and grants what runs there some time first. Without it the
// job is run again.
func TestF03LocalStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("two starts of a real ComfyUI each: the long form has it")
	}
	for name, c := range map[string]struct {
		vars     []string
		attempts int
	}{
		"it waits by default": {nil, 1},
		"at once":             {[]string{"COMFYD_DRAIN_TIMEOUT=0s"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.serveLocal(c.vars...)
			id := w.submit(slow(t))
			w.running(id)
			pid := w.comfyUI()
			began := time.Now()
			p.signal(syscall.SIGTERM)
			t.Logf("stopped %.1f s after SIGTERM", time.Since(began).Seconds())
			w.fired(dead(pid), "SIGTERM of comfyd while its own ComfyUI worked: both are gone")
			p.start()
			w.completes(id, c.attempts)
			w.check()
		})
	}
}

// TestF29OversizedButValid asks the real ComfyUI for more memory than there is: that job fails with a reason, and the
// next one completes.
func TestF29OversizedButValid(t *testing.T) {
	w, d := newWorld(t), newDoor(t)
	w.gpu = d
	w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+d.URL)
	e := w.send(job{graph: `{"1":{"class_type":"EmptyImage","inputs":{"width":16384,"height":16384,"batch_size":4096,"color":0}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"huge"},"_meta":{"title":"@MARK@"}}}`})
	require.Equal(t, http.StatusAccepted, e.Code)
	status := w.fails(e.Job, "out_of_memory")
	require.EqualValues(t, 1, status["attempts"])
	require.Equal(t, "1", status["node_id"])
	w.fired(len(d.posts()) == 1, "a graph of 13 TB, valid by every limit of its nodes")
	w.completes(w.submit(noise(int(time.Now().UnixNano()%1e9))), 1)
	w.check()
}

// TestF19Cached sends the same workflow again and again, over a restart of comfyd: ComfyUI has it cached, and the outputs
// are there each time.
func TestF19Cached(t *testing.T) {
	w, d := newLoneWorld(t), newDoor(t)
	w.gpu = d
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+d.URL)
	graph := noise(int(time.Now().UnixNano() % 1e9))
	w.completes(w.submit(graph), 1)
	require.Equal(t, true, w.completes(w.submit(graph), 1)["cached"])
	p.kill()
	p.start()
	last := w.completes(w.submit(graph), 1)
	w.fired(last["cached"] == true, "the same workflow three times, ComfyUI said that it was cached")
	w.check()
}
