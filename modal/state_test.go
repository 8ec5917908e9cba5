package modal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakemodal"
)

// TestNewWithoutToken says what to set and where to get it.
func TestNewWithoutToken(t *testing.T) {
	t.Setenv("MODAL_CONFIG_PATH", filepath.Join(t.TempDir(), "none.toml"))
	t.Setenv("MODAL_TOKEN_ID", "")
	t.Setenv("MODAL_TOKEN_SECRET", "")
	for range 2 {
		_, err := New(Options{})
		require.ErrorContains(t, err, "MODAL_TOKEN_ID and MODAL_TOKEN_SECRET")
		require.ErrorContains(t, err, "https://modal.com/settings/tokens")
		t.Setenv("MODAL_TOKEN_ID", "ak-half")
	}
	bad := filepath.Join(t.TempDir(), "bad.toml")
	require.NoError(t, os.WriteFile(bad, []byte("[default\n"), 0o600))
	t.Setenv("MODAL_CONFIG_PATH", bad)
	_, err := New(Options{})
	require.ErrorContains(t, err, "bad.toml")
}

// TestNewWithoutNetwork: a worker starts, says what is wrong, and stops at once.
func TestNewWithoutNetwork(t *testing.T) {
	t.Setenv("MODAL_CONFIG_PATH", filepath.Join(t.TempDir(), "none.toml"))
	t.Setenv("MODAL_TOKEN_ID", "ak-1")
	t.Setenv("MODAL_TOKEN_SECRET", "as-1")
	t.Setenv("MODAL_SERVER_URL", "http://127.0.0.1:1")
	began := time.Now()
	b, err := New(Options{Pool: "far-away", Slots: 3, GPUs: []string{"T4"}})
	require.NoError(t, err)
	require.Less(t, time.Since(began), 10*time.Second)
	require.Equal(t, backend.Pool{Name: "far-away", Kind: "modal", Slots: 3, Idempotent: true, Metered: true, GPUs: []string{"T4"}}, b.Pool())
	require.Eventually(t, func() bool { return b.Servers()[0].Problem != "Modal has not answered yet" }, patience, 10*time.Millisecond)
	s := b.Servers()[0]
	require.Equal(t, "modal/comfyd", s.Name)
	require.False(t, s.Healthy)
	require.Contains(t, s.Problem, "Modal cannot be reached")
	require.Contains(t, s.Problem, "status.modal.com")
	p := backendtest.Prompt(t, smallGraph)
	require.Equal(t, s.Problem, errorOf(t, b.Ready(t.Context(), p), comfy.BackendUnavailable).Message)
	rec := backendtest.NewRecorder()
	_, err = b.Run(t.Context(), p, nil, rec)
	errorOf(t, err, comfy.BackendUnavailable)
	require.Empty(t, rec.Handles())
	require.NoError(t, b.Close())
}

// TestProblems: what keeps Modal from working is said in words that help, and ends with its cause.
func TestProblems(t *testing.T) {
	for name, c := range map[string]struct {
		breaks func(m *fakemodal.Server, o *Options) *fakemodal.Fault
		says   []string
	}{
		"token":       {func(m *fakemodal.Server, _ *Options) *fakemodal.Fault { return m.RefuseToken() }, []string{"does not accept the token", "https://modal.com/settings/tokens"}},
		"away":        {func(m *fakemodal.Server, _ *Options) *fakemodal.Fault { return m.Unavailable() }, []string{"cannot be reached"}},
		"throttled":   {func(m *fakemodal.Server, _ *Options) *fakemodal.Fault { return m.Throttle(0, 0, "FunctionGet") }, []string{"takes no more at the moment", "Rate limit"}},
		"undeployed":  {func(_ *fakemodal.Server, o *Options) *fakemodal.Fault { o.App = "nothing"; return nil }, []string{`"nothing" is not deployed`, "modal deploy modal/modal_comfy_api.py"}},
		"environment": {func(_ *fakemodal.Server, o *Options) *fakemodal.Fault { o.Environment = "elsewhere"; return nil }, []string{`environment "elsewhere"`}},
	} {
		t.Run(name, func(t *testing.T) {
			var fault *fakemodal.Fault
			w := newWorld(t, nil, func(m *fakemodal.Server, o *Options, _ *timing) { fault = c.breaks(m, o) })
			var s backend.Server
			require.Eventually(t, func() bool {
				s = w.b.Servers()[0]
				return s.Problem != "Modal has not answered yet"
			}, patience, 10*time.Millisecond)
			require.False(t, s.Healthy)
			for _, text := range c.says {
				require.Contains(t, s.Problem, text)
			}
			require.Contains(t, errorOf(t, w.b.Ready(w.ctx(), w.prompt(nil)), comfy.BackendUnavailable).Message, c.says[0])
			errorOf(t, w.b.Refresh(w.ctx()), comfy.BackendUnavailable)
			if fault == nil {
				return
			}
			require.Positive(t, fault.Fired())
			fault.Clear()
			w.ready(w.b)
			w.succeeds(w.run(w.ctx(), w.prompt(nil), nil))
		})
	}
}

// TestServer reports what the app's catalogue says, asked once.
func TestServer(t *testing.T) {
	w := newWorld(t, nil)
	w.well(w.b)
	s := w.b.Servers()[0]
	require.Equal(t, "0.39.2", s.Version)
	require.Equal(t, "L40S", s.Device)
	require.Contains(t, string(s.Catalog), `"EmptyImage"`)
	require.WithinDuration(t, time.Now(), s.CatalogAt, patience)
	require.WithinDuration(t, time.Now(), s.LastSeen, patience)
	w.ready(w.b)
	require.Eventually(t, func() bool { return w.b.Servers()[0].Device == "NVIDIA L40S" }, patience, 10*time.Millisecond, "the container knows better")
	for range 3 {
		require.NoError(t, w.b.Refresh(w.ctx()))
	}
	require.Len(t, w.calls("catalog"), 1, "nothing has changed")
}

// TestNewDeploy: the watcher finds it, asks for its catalogue, and hands prompts to it.
func TestNewDeploy(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	before := w.b.deployment()
	_, err := w.m.Deploy(w.ctx())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return w.b.deployment() != before && len(w.calls("catalog")) == 2 }, patience, 10*time.Millisecond)
	w.ready(w.b)
	w.succeeds(w.run(w.ctx(), w.prompt(nil), nil))
}

// refuses waits until a prompt is refused for good: while the app is asked whether that is still right, it is not.
func (w *world) refuses(p *backend.Prompt) *backend.Error {
	w.Helper()
	var e *backend.Error
	require.Eventually(w, func() bool {
		return errors.As(w.b.Ready(w.ctx(), p), &e) && e.Code == comfy.InvalidWorkflow
	}, patience, 20*time.Millisecond)
	require.NotEmpty(w, e.Message)
	return e
}

// TestModelsAdded: a model that was added is known after a Refresh, and before that nothing is refused for good.
func TestModelsAdded(t *testing.T) {
	models := t.TempDir()
	w := newWorld(t, func(o *fakemodal.Options) { o.Env = map[string]string{"SCRIPTED_MODELS": models} })
	w.ready(w.b)
	wants := func(model string) *backend.Prompt {
		return backendtest.Prompt(t, `{"1":{"class_type":"Loader","inputs":{"model":"`+model+`"}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"x"}}}`)
	}
	refused := w.refuses(wants("new.safetensors"))
	require.Contains(t, refused.NodeErrors, "1")
	require.Len(t, w.calls("catalog"), 1)
	notes := filepath.Join(w.m.VolumeDir(testApp+"-models"), ".comfyd", "loras")
	require.NoError(t, os.MkdirAll(notes, 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(notes, "x.json"), []byte("{}"), 0o600))
	require.NoError(t, w.b.Refresh(w.ctx()))
	require.Len(t, w.calls("catalog"), 1, "notes are no models")

	require.NoError(t, os.WriteFile(filepath.Join(models, "new.safetensors"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(w.m.VolumeDir(testApp+"-models"), "new.safetensors"), []byte("weights"), 0o600))
	var err error
	require.Eventually(t, func() bool {
		err = w.b.Ready(w.ctx(), wants("new.safetensors"))
		return err == nil
	}, patience, 200*time.Millisecond, "%v", err)
	require.Len(t, w.calls("catalog"), 2)
	w.refuses(wants("other.safetensors"))
}

// TestUnknownCatalog: while the app does not say what it has, workflows are accepted.
func TestUnknownCatalog(t *testing.T) {
	var hold *fakemodal.Fault
	w := newWorld(t, nil, func(m *fakemodal.Server, _ *Options, _ *timing) {
		hold = m.Inject(fakemodal.Rule{Methods: []string{"FunctionGetOutputs"}, From: fakemodal.Clients, Hang: true})
	})
	require.NoError(t, hold.Wait(w.ctx()))
	require.Nil(t, w.b.known())
	p := backendtest.Prompt(t, `{"1":{"class_type":"NoSuchNode","inputs":{}}}`)
	errorOf(t, w.b.Ready(w.ctx(), p), comfy.BackendUnavailable) // and a container is started
	require.Eventually(t, func() bool { return len(w.calls("warm")) == 1 }, patience, 10*time.Millisecond)
	hold.Clear()
	w.well(w.b)
	w.refuses(p)
}

// TestOneWarmUp: however many jobs wait, one container is asked for; and none where one is there.
func TestOneWarmUp(t *testing.T) {
	w := newWorld(t, nil)
	w.well(w.b)
	var group sync.WaitGroup
	var mu sync.Mutex
	var says []string
	for range 20 {
		group.Go(func() {
			if err := w.b.Ready(w.ctx(), w.prompt(nil)); err != nil {
				var e *backend.Error
				errors.As(err, &e)
				mu.Lock()
				defer mu.Unlock()
				says = append(says, e.Message)
			}
		})
	}
	group.Wait()
	require.NotEmpty(t, says)
	require.Contains(t, says[0], "a GPU container is starting at Modal")
	w.ready(w.b)
	// Between the moment at which it is up and the one at which the backend knows, it is not sure.
	require.Eventually(t, func() bool { return w.b.Servers()[0].Device == "NVIDIA L40S" }, patience, 10*time.Millisecond)
	for range 5 {
		require.NoError(t, w.b.Ready(w.ctx(), w.prompt(nil)))
	}
	require.Len(t, w.calls("warm"), 1)

	// Another worker sees the runner.
	b := w.another()
	w.ready(b)
	require.Len(t, w.calls("warm"), 1)
}

// TestGPUAndTimeout of a job: containers of their own, by the allow-list.
func TestGPUAndTimeout(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	p := w.prompt(nil)
	p.GPU = "B200"
	e := errorOf(t, w.b.Ready(w.ctx(), p), comfy.InvalidWorkflow)
	require.Equal(t, `the GPU "B200" is not to be had: allowed are L40S, H100`, e.Message)
	_, err := w.b.Run(w.ctx(), p, nil, w.rec)
	errorOf(t, err, comfy.InvalidWorkflow)
	require.Empty(t, w.rec.Handles())

	p = w.prompt(nil)
	p.GPU, p.RunTimeout = "H100", 3*time.Hour
	require.Eventually(t, func() bool { return w.b.Ready(w.ctx(), p) == nil }, patience, 20*time.Millisecond)
	w.succeeds(w.run(w.ctx(), p, nil))
	call, err := w.m.Call(w.call())
	require.NoError(t, err)
	require.Equal(t, []string{"H100"}, call.GPUs)
	require.Equal(t, 4*time.Hour, call.Timeout)
	for _, r := range w.m.Requests("FunctionBindParams") {
		res := r.Message.(*pb.FunctionBindParamsRequest).GetFunctionOptions().GetResources()
		require.Equal(t, []uint32{2500, 2048}, []uint32{res.GetMilliCpu(), res.GetMemoryMb()}, "as deployed: the GPU alone would take them away")
		require.Equal(t, "H100", res.GetGpuConfig().GetGpuType())
	}
	require.NotEmpty(t, w.m.Requests("FunctionBindParams"))

	p = w.prompt(nil)
	p.GPU, p.RunTimeout = "L40S", 30*time.Minute // as deployed
	w.succeeds(w.run(w.ctx(), p, nil))
	call, err = w.m.Call(w.call())
	require.NoError(t, err)
	require.Equal(t, time.Hour, call.Timeout)
	require.Len(t, w.calls("warm"), 2)
}

// TestStartFails: a container that does not come up puts its kind aside with the reason, and is tried again.
func TestStartFails(t *testing.T) {
	w := newWorld(t, func(o *fakemodal.Options) { o.Env = map[string]string{"SCRIPTED_WARM_FAILS": "1"} },
		func(_ *fakemodal.Server, _ *Options, tm *timing) { tm.aside = time.Minute })
	w.well(w.b)
	p := w.prompt(nil)
	var e *backend.Error
	require.Eventually(t, func() bool { // for a moment, while the call of warm runs, a container seems to be there
		return errors.As(w.b.Ready(w.ctx(), p), &e) && e.Message == "a GPU container did not come up at Modal: ComfyUI did not come up: no module named torch"
	}, patience, 10*time.Millisecond)
	require.ErrorContains(t, e.Cause, "/opt/comfyui/main.py: boom", "the log's tail")
	tries := len(w.calls("warm"))
	for range 5 {
		errorOf(t, w.b.Ready(w.ctx(), p), comfy.BackendUnavailable)
	}
	require.Len(t, w.calls("warm"), tries, "it is put aside")
}

// TestInitFailure is Modal's own word for it.
func TestInitFailure(t *testing.T) {
	w := newWorld(t, nil, func(_ *fakemodal.Server, _ *Options, tm *timing) { tm.aside = 5 * time.Second }) // the reason is told so long
	w.well(w.b)
	fault := w.m.FailStart(1, "RuntimeError: no GPU")
	p := w.prompt(nil)
	require.Eventually(t, func() bool {
		return errorOf(t, w.b.Ready(w.ctx(), p), comfy.BackendUnavailable).Message == "a GPU container did not come up at Modal: RuntimeError: no GPU"
	}, patience, 10*time.Millisecond)
	require.Equal(t, 1, fault.Fired())
	w.ready(w.b) // after the pause
	require.Len(t, w.calls("warm"), 2)
}

// TestThrottledWarmUp is back-pressure.
func TestThrottledWarmUp(t *testing.T) {
	w := newWorld(t, nil, func(_ *fakemodal.Server, _ *Options, tm *timing) { tm.throttle = 3 * time.Second })
	w.well(w.b)
	fault := w.m.Throttle(0, 100*time.Millisecond)
	var e *backend.Error
	require.Eventually(t, func() bool {
		e = errorOf(t, w.b.Ready(w.ctx(), w.prompt(nil)), comfy.BackendUnavailable)
		return strings.Contains(e.Message, "takes no more at the moment")
	}, patience, 10*time.Millisecond)
	require.Greater(t, fault.Fired(), 1, "the SDK waited as it was told, for as long as it may")
	fault.Clear()
	w.ready(w.b)
}
