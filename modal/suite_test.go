package modal

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
	"github.com/comfyd/comfyd/internal/fakemodal"
)

// realApp is modal_comfy_api.py itself on the fake, with the real ComfyUI in its containers.
func realApp(t *testing.T, change func(o *fakemodal.Options)) *fakemodal.Server {
	t.Helper()
	comfyui := os.Getenv("COMFYD_TEST_COMFYUI_DIR")
	if comfyui == "" {
		t.Skip("COMFYD_TEST_COMFYUI_DIR is not set: it names the folder of a ComfyUI (make test sets it)")
	}
	o := fakemodal.Options{
		Dir: t.TempDir(), Python: python(t), AppFile: "modal_comfy_api.py", Log: t.Logf,
		DeployEnv: map[string]string{"COMFYD_MODAL_MAX_CONTAINERS": "1", "COMFYD_MODAL_SCALEDOWN_WINDOW": "600"},
		Env: map[string]string{"COMFYD_COMFYUI_DIR": comfyui, "COMFYD_COMFYUI_PYTHON": filepath.Join(comfyui, ".venv/bin/python"),
			"COMFYD_COMFYUI_ARGS": "--cpu",
			"COMFYD_WORK_DIR":     fakemodal.ContainerDir, "COMFYD_MODELS_DIR": fakemodal.VolumesDir + "/comfyd-models"},
		Secrets: map[string]map[string]string{"HUGGINGFACE_ACCESS_TOKEN": {"HUGGINGFACE_ACCESS_TOKEN": "hf_test"}},
	}
	if change != nil {
		change(&o)
	}
	m, err := fakemodal.Start(o)
	require.NoError(t, err)
	t.Cleanup(m.Stop)
	for k, v := range m.Env() {
		t.Setenv(k, v)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = m.Deploy(ctx)
	require.NoError(t, err)
	return m
}

// TestSuite runs the conformance suite on the product's own Python class. Its tests share one backend, because each
// would start a ComfyUI for the catalogue, and one container with one ComfyUI.
func TestSuite(t *testing.T) {
	m := realApp(t, nil)
	tm := defaultTiming()
	tm.catalogWait = time.Minute // an invalid workflow is to be refused at once
	b, err := newBackend(Options{Log: logTo(t)}, tm)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	var once sync.Once
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		once.Do(func() {
			p := backendtest.Prompt(t, smallGraph)
			require.Eventually(t, func() bool { return b.known() != nil && b.Ready(t.Context(), p) == nil }, 2*patience, 100*time.Millisecond)
		})
		return b
	})
	gpu := 0
	for _, c := range m.Containers() {
		if len(c.GPUs) > 0 {
			gpu++
		}
	}
	require.Equal(t, 1, gpu, "all prompts ran in one container, also after those that failed or were cancelled")
}

// TestContainerTakenAway while the real class runs a prompt in the real ComfyUI: Modal runs the call again, the ledger
// knows it as the same, and the job has its files once.
func TestContainerTakenAway(t *testing.T) {
	m := realApp(t, nil)
	b, err := New(Options{Log: logTo(t)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	w := &world{T: t, m: m, b: b, rec: backendtest.NewRecorder()}
	for _, does := range []func(id string) error{m.KillContainer, m.Preempt} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience) // two cold starts
		defer cancel()
		require.Eventually(t, func() bool { return b.Ready(ctx, w.prompt(nil)) == nil }, 2*patience, 50*time.Millisecond)
		w.rec = backendtest.NewRecorder()
		p := backendtest.Prompt(t, slowGraph)
		end := make(chan result, 1)
		go func() {
			out, err := b.Run(ctx, p, nil, w.rec)
			end <- result{out, err}
		}()
		id := w.running()
		require.NoError(t, does(id))
		r := <-end
		require.NoError(t, r.err)
		require.Len(t, r.out.Files, 1)
		_, err = w.read(b, r.out)
		require.NoError(t, err)
		call, err := m.Call(id)
		require.NoError(t, err)
		require.Len(t, call.Attempts, 2)
		require.NotZero(t, r.out.ColdStartMS)
	}
}

// slowGraph takes some seconds.
const slowGraph = `{"1":{"class_type":"VAELoader","inputs":{"vae_name":"pixel_space"}},
	"2":{"class_type":"EmptyChromaRadianceLatentImage","inputs":{"width":384,"height":12800,"batch_size":1}},
	"3":{"class_type":"VAEDecodeTiled","inputs":{"samples":["2",0],"vae":["1",0],"tile_size":64,"overlap":16,"temporal_size":64,"temporal_overlap":8}},
	"4":{"class_type":"SaveImage","inputs":{"images":["3",0],"filename_prefix":"slow"}}}`
