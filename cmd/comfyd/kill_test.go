package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestKilledInMidJob kills everything of ours while ComfyUI works: the next start goes on with the same prompt (F3, F5).
func TestKilledInMidJob(t *testing.T) {
	for name, s := range map[string]syscall.Signal{"kill -9": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			c := count(t)
			p := prepare(t, "COMFYD_BACKEND=url", "COMFYUI_URLS="+c.URL)
			p.start()
			id := p.submit(slow(t, t.Name()))
			p.running(id)
			p.signal(s)
			killed := time.Now()
			_, _, err := p.get("/healthz")
			require.Error(t, err, "the fault has fired")
			p.start()
			up := time.Since(killed)
			status := p.finish(id)
			require.Equal(t, "COMPLETED", status["status"], "%v", status)
			require.Equal(t, 1, c.runs(), "the GPU runs once")
			require.EqualValues(t, 1, status["attempts"])
			t.Logf("ready again after %s, completed %s after the fault", up, time.Since(killed))
		})
	}
}

// TestKilledUnderLoad kills comfyd with many jobs in flight (F5).
func TestKilledUnderLoad(t *testing.T) {
	c := count(t)
	p := prepare(t, "COMFYD_BACKEND=url", "COMFYUI_URLS="+c.URL)
	p.start()
	const n = 40
	ids := make([]string, n)
	for i := range ids {
		ids[i] = p.submit(noise(i))
	}
	p.kill()
	p.start()
	runs := 0.0
	for _, id := range ids {
		status := p.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		runs += status["attempts"].(float64)
	}
	require.LessOrEqual(t, float64(c.runs()), runs, "every run of the GPU is in the attempts")
	t.Logf("%d jobs, %d prompts, %v attempts", n, c.runs(), runs)
}

// TestComfyUIKilledInMidJob kills the ComfyUI that comfyd runs (F6): the job is run again, and says so.
func TestComfyUIKilledInMidJob(t *testing.T) {
	p := prepareLocal(t)
	p.start()
	id := p.submit(slow(t, t.Name()))
	p.running(id)
	killed := p.killComfyUI()
	status := p.finish(id)
	require.Equal(t, "COMPLETED", status["status"], "%v", status)
	require.EqualValues(t, 2, status["attempts"])
	t.Logf("completed %s after the fault", time.Since(killed))
	p.signal(syscall.SIGTERM)
}

// TestEverythingKilledInMidJob kills comfyd and its ComfyUI at once (F5, F6, F7).
func TestEverythingKilledInMidJob(t *testing.T) {
	p := prepareLocal(t)
	p.start()
	running, waiting := p.submit(slow(t, t.Name())), p.submit(noise(1))
	p.running(running)
	p.kill()
	p.killComfyUI()
	p.start()
	status := p.finish(running)
	require.Equal(t, "COMPLETED", status["status"], "%v", status)
	require.EqualValues(t, 2, status["attempts"])
	require.Equal(t, "COMPLETED", p.finish(waiting)["status"])
	p.signal(syscall.SIGTERM)
}

// TestComfyUIOutlivesUs: a kill -9 of comfyd leaves its ComfyUI working, and the next start adopts it.
func TestComfyUIOutlivesUs(t *testing.T) {
	p := prepareLocal(t)
	p.start()
	id := p.submit(slow(t, t.Name()))
	p.running(id)
	pid := p.comfyUI()
	p.kill()
	p.start()
	require.Equal(t, pid, p.comfyUI(), "adopted, not started anew")
	status := p.finish(id)
	require.Equal(t, "COMPLETED", status["status"], "%v", status)
	require.EqualValues(t, 1, status["attempts"])
	p.signal(syscall.SIGTERM)
	require.Eventually(t, func() bool {
		left, err := process.NewProcess(int32(pid))
		if err != nil {
			return true
		}
		// It is no child of ours: whoever has inherited it may not have noticed its end yet.
		state, err := left.Status()
		return err != nil || slices.Contains(state, process.Zombie)
	}, 10*time.Second, 50*time.Millisecond, "it stops with us")
}

// TestCanceledBeforeAnybodyFollowsAgain: comfyd dies, comes back, and the job is canceled before it has found its prompt
// again. Nothing runs on after the end of its job.
func TestCanceledBeforeAnybodyFollowsAgain(t *testing.T) {
	s := fakecomfy.New(t)
	gate := s.Hold("EmptyImage")
	p := prepare(t, "COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL)
	p.start()
	id := p.submit(noise(1))
	gate.Reached()
	p.kill()
	p.start()
	code, body, err := p.request("POST", "/cancel/"+id, nil)
	require.NoError(t, err)
	require.Equal(t, 202, code, "%v", body)
	require.Eventually(t, func() bool { return len(s.Interrupts()) > 0 }, time.Minute, 20*time.Millisecond, "the prompt is interrupted")
	gate.Open()
	status := p.finish(id)
	require.Equal(t, "canceled", status["code"], "%v", status)
	require.Equal(t, 1, s.TotalRuns())
	p.signal(syscall.SIGTERM)
}

func prepareLocal(t *testing.T) *comfyd {
	t.Helper()
	dir := os.Getenv("COMFYD_TEST_COMFYUI_DIR")
	if dir == "" {
		t.Skip("COMFYD_TEST_COMFYUI_DIR is not set: make test prepares a real ComfyUI and sets it")
	}
	return prepare(t, "COMFYD_BACKEND=local", "COMFYUI_DIR="+dir)
}

// comfyUI is the process that the data folder's state file names.
func (p *comfyd) comfyUI() int {
	p.t.Helper()
	var state struct{ PID int }
	var found []string
	for _, v := range p.vars {
		if dir, ok := strings.CutPrefix(v, "COMFYD_DATA_DIR="); ok {
			found, _ = filepath.Glob(filepath.Join(dir, "*", "state.json"))
		}
	}
	require.Len(p.t, found, 1)
	raw, err := os.ReadFile(found[0])
	require.NoError(p.t, err)
	require.NoError(p.t, json.Unmarshal(raw, &state))
	require.NotZero(p.t, state.PID, "pid in %s", strconv.Quote(string(raw)))
	return state.PID
}

func (p *comfyd) killComfyUI() time.Time {
	p.t.Helper()
	require.NoError(p.t, syscall.Kill(p.comfyUI(), syscall.SIGKILL))
	return time.Now()
}
