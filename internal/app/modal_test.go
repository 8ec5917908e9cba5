package app_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

// fakeModal is a Modal on which the product's own app is deployed by the real `modal deploy`; its containers run the
// product's own Python with a real ComfyUI on the CPU, one at a time.
func fakeModal(t *testing.T, change ...func(*fakemodal.Options)) *fakemodal.Server {
	t.Helper()
	python, comfyUI := os.Getenv("COMFYD_TEST_MODAL_PYTHON"), os.Getenv("COMFYD_TEST_COMFYUI_DIR")
	if python == "" || comfyUI == "" {
		t.Skip("COMFYD_TEST_MODAL_PYTHON and COMFYD_TEST_COMFYUI_DIR are not set: make test prepares both and sets them")
	}
	dir := t.TempDir()
	o := fakemodal.Options{
		Dir: filepath.Join(dir, "modal"), Python: python, AppFile: filepath.Join("..", "..", "modal", "modal_comfy_api.py"),
		Secrets:   map[string]map[string]string{"HUGGINGFACE_ACCESS_TOKEN": {"HUGGINGFACE_ACCESS_TOKEN": "hf_fake"}},
		DeployEnv: map[string]string{"COMFYD_MODAL_MAX_CONTAINERS": "1"},
		Env: map[string]string{
			"COMFYD_COMFYUI_DIR": comfyUI, "COMFYD_COMFYUI_PYTHON": filepath.Join(comfyUI, ".venv", "bin", "python"), "COMFYD_COMFYUI_ARGS": "--cpu",
			"COMFYD_MODELS_DIR": filepath.Join(dir, "models"),
		},
		Log: t.Logf,
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "models"), 0o755))
	for _, f := range change {
		f(&o)
	}
	m, err := fakemodal.Start(o)
	require.NoError(t, err)
	t.Cleanup(m.Stop)
	ctx, done := context.WithTimeout(t.Context(), 2*time.Minute)
	defer done()
	_, err = m.Deploy(ctx)
	require.NoError(t, err)
	for k, v := range m.Env() {
		t.Setenv(k, v)
	}
	return m
}

// startModal runs a whole comfyd on a fake Modal and waits until it has the catalogue.
func startModal(t *testing.T, vars map[string]string, change ...func(*fakemodal.Options)) (*fakemodal.Server, *api) {
	t.Helper()
	m := fakeModal(t, change...)
	all := map[string]string{"COMFYD_BACKEND": "modal"}
	for k, v := range vars {
		all[k] = v
	}
	a := start(t, all)
	a.ready()
	unknown := map[string]any{"workflow": json.RawMessage(`{"1":{"class_type":"NoSuchNode","inputs":{}}}`)}
	require.Eventually(t, func() bool { return a.do("POST", "/submit_workflow", unknown).code == 400 }, 2*time.Minute, time.Second, "no catalogue")
	return m, a
}

// TestCorpusAtModal sends every workflow of testdata over HTTP to the product's app at Modal.
func TestCorpusAtModal(t *testing.T) {
	m, a := startModal(t, nil)
	corpus(t, a)
	for _, c := range m.Calls() {
		if c.Method == "run" {
			require.LessOrEqual(t, len(c.Attempts), 1, "one call, one run: %+v", c)
		}
	}
}

// TestJobsAtModal: what holds for a job on any backend holds there.
func TestJobsAtModal(t *testing.T) {
	_, a := startModal(t, map[string]string{"COMFYD_MODAL_GPUS": "L40S,H100"})
	for name, f := range map[string]func(*api){
		"the PRD's answers":                 theContract,
		"another tenant sees nothing":       tenants,
		"one key is one job":                idempotency,
		"the same workflow again is cached": cachedRerun,
		"two jobs with one file name":       inputIsolation,
		"files of others cannot be read":    pathPolicy,
		"seeds keep their digits":           digits,
		"a large workflow":                  largeWorkflow,
		"a hundred images":                  hundredImages,
		"no graph inside the file":          stripped,
		"cancel":                            cancel,
		"the run limit":                     runLimit,
		"the job's GPU":                     jobsGPU,
	} {
		t.Run(name, func(t *testing.T) {
			a := *a
			a.t = t
			f(&a)
		})
	}
}

func jobsGPU(a *api) {
	r := a.do("POST", "/submit_workflow", map[string]any{"workflow": graph(21, "gpu"), "gpu": "B200"})
	require.Equal(a.t, 400, r.code)
	require.Contains(a.t, r.body["error"], "H100, L40S", "it says what there is")
	status := a.finish(a.submit(map[string]any{"workflow": graph(22, "gpu"), "gpu": "h100"}))
	require.Equal(a.t, "COMPLETED", status["status"], "%v", status)
	require.EqualValues(a.t, 1, status["attempts"])
	require.Greater(a.t, status["metrics"].(map[string]any)["cold_start_ms"], 1000.0, "an H100 is a container of its own")
}

// TestMisbehavioursOfModal: what a client sees of each.
func TestMisbehavioursOfModal(t *testing.T) {
	m, a := startModal(t, map[string]string{"COMFYD_RUN_TIMEOUT": "10m"}, func(o *fakemodal.Options) { o.PreemptGrace = 2 * time.Second })
	running := func(t *testing.T) (id, call string) {
		before := map[string]bool{}
		for _, c := range m.Calls() {
			before[c.ID] = true
		}
		id = a.submit(map[string]any{"workflow": slow(t)})
		require.Eventually(t, func() bool {
			p, _ := a.do("GET", "/status/"+id, nil).body["progress"].(map[string]any)
			return p != nil && p["value"].(float64) > 0
		}, 2*time.Minute, 100*time.Millisecond, "the job does not run")
		for _, c := range m.Calls() {
			if !before[c.ID] && c.Method == "run" {
				return id, c.ID
			}
		}
		t.Fatal("no call was made")
		return "", ""
	}
	t.Run("preempted", func(t *testing.T) {
		id, call := running(t)
		require.NoError(t, m.Preempt(call))
		status := a.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		require.EqualValues(t, 2, status["attempts"], "the same call in a second container: the GPU ran twice")
	})
	t.Run("container killed", func(t *testing.T) {
		id, call := running(t)
		require.NoError(t, m.KillContainer(call))
		status := a.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		require.EqualValues(t, 2, status["attempts"])
	})
	t.Run("Modal's own failure", func(t *testing.T) {
		id, call := running(t)
		require.NoError(t, m.InternalFailure(call))
		status := a.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		require.EqualValues(t, 2, status["attempts"], "a second call")
	})
	t.Run("unreachable for a while", func(t *testing.T) {
		id, _ := running(t)
		away := m.Unavailable()
		ctx, done := context.WithTimeout(t.Context(), time.Minute)
		defer done()
		require.NoError(t, away.Wait(ctx))
		require.Equal(t, "RUNNING", a.do("GET", "/status/"+id, nil).body["status"])
		away.Clear()
		status := a.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		require.EqualValues(t, 1, status["attempts"])
	})
	t.Run("throttled", func(t *testing.T) {
		f := m.Throttle(3, 0)
		status := a.finish(a.submit(map[string]any{"workflow": graph(31, "throttled")}))
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		require.Equal(t, 3, f.Fired())
	})
	t.Run("token refused", func(t *testing.T) {
		f := m.RefuseToken()
		id := a.submit(map[string]any{"workflow": graph(32, "token")})
		ctx, done := context.WithTimeout(t.Context(), time.Minute)
		defer done()
		require.NoError(t, f.Wait(ctx))
		require.Eventually(t, func() bool { return a.do("GET", "/readyz", nil).code == 503 }, time.Minute, 200*time.Millisecond)
		f.Clear()
		require.Equal(t, "COMPLETED", a.finish(id)["status"], "the job has waited")
	})
	t.Run("cancelled in Modal's queue", func(t *testing.T) {
		first, call := running(t)
		waiting := a.submit(map[string]any{"workflow": graph(34, "waits at Modal")})
		require.Eventually(t, func() bool { return queued(m) == 1 }, time.Minute, 50*time.Millisecond)
		require.Equal(t, 202, a.do("POST", "/cancel/"+waiting, nil).code)
		require.Equal(t, "canceled", a.finish(waiting)["code"])
		require.Equal(t, 0, queued(m))
		require.Equal(t, 202, a.do("POST", "/cancel/"+first, nil).code)
		require.Equal(t, "canceled", a.finish(first)["code"])
		c, err := m.Call(call)
		require.NoError(t, err)
		require.Equal(t, "terminated", c.Outcome, "it costs nothing any more")
		require.Equal(t, "COMPLETED", a.finish(a.submit(map[string]any{"workflow": graph(35, "after")}))["status"], "the next job runs clean")
	})
}

// queued is how many prompts wait at Modal.
func queued(m *fakemodal.Server) int {
	n := 0
	for _, c := range m.Calls() {
		if c.Method == "run" && c.State == fakemodal.Queued {
			n++
		}
	}
	return n
}

// TestNoContainerComesUp: the job waits, asks ever more seldom, and says in the end what the container's log said.
func TestNoContainerComesUp(t *testing.T) {
	m, a := startModal(t, map[string]string{"COMFYD_START_TIMEOUT": "40s"})
	m.FailStart(100, "StartFailed('ComfyUI did not start: no CUDA device')")
	status := a.finish(a.submit(map[string]any{"workflow": graph(33, "start")}))
	require.Equal(t, "FAILED", status["status"])
	require.Equal(t, "backend_unavailable", status["code"], "%v", status)
	require.Contains(t, status["error"], "no CUDA device")
	require.NotContains(t, status["error"], "Traceback")
}

// TestBigResultAtModal: fifty megabytes pass through the worker to the store without being held in memory.
func TestBigResultAtModal(t *testing.T) {
	_, a := startModal(t, nil)
	g := json.RawMessage(`{"1":{"class_type":"EmptyImage","inputs":{"width":4096,"height":4096,"batch_size":1,"color":1}},
		"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":7,"strength":1.0}},
		"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"big"}}}`)
	a.finish(a.submit(map[string]any{"workflow": graph(41, "warm")}))
	peak := peakMemory()
	id := a.submit(map[string]any{"workflow": g})
	require.Eventually(t, func() bool { return a.do("GET", "/status/"+id+"?wait=5&output=url", nil).code == 200 }, 2*time.Minute, time.Millisecond)
	grown := peak()
	o := outputs(t, a.do("GET", "/status/"+id+"?output=url", nil).body)[0]
	require.Greater(t, o["size_bytes"], 45e6)
	t.Logf("a result of %.1f MB: the heap grew by at most %.1f MB", o["size_bytes"].(float64)/1e6, float64(grown)/1e6)
	require.Less(t, grown, int64(32<<20))
}

// peakMemory watches the heap until the function that it returns is called, which tells by how much it grew at most.
func peakMemory() func() int64 {
	live := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	runtime.GC()
	base, most := live(), int64(0)
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				most = max(most, live()-base)
			}
		}
	}()
	return func() int64 {
		close(quit)
		<-gone
		return most
	}
}
