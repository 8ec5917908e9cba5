package fakemodal

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Product is a Modal on which the product's own app is deployed by the real `modal deploy`. Its containers, one at a time
// for each function, run the product's own Python with a real ComfyUI on the CPU; the Volume's folder is empty. The test
// is skipped where `make test` has not prepared both. Change may alter the options; the server ends with the test.
func Product(t testing.TB, change ...func(*Options)) *Server {
	t.Helper()
	python, comfyUI := os.Getenv("COMFYD_TEST_MODAL_PYTHON"), os.Getenv("COMFYD_TEST_COMFYUI_DIR")
	if python == "" || comfyUI == "" {
		t.Skip("COMFYD_TEST_MODAL_PYTHON and COMFYD_TEST_COMFYUI_DIR are not set: make test prepares both and sets them")
	}
	o := Options{
		Dir: t.TempDir(), Python: python, AppFile: appFile(t),
		Secrets:   map[string]map[string]string{"HUGGINGFACE_ACCESS_TOKEN": {"HUGGINGFACE_ACCESS_TOKEN": "hf_fake"}},
		DeployEnv: map[string]string{"COMFYD_MODAL_MAX_CONTAINERS": "1"},
		Env: map[string]string{
			"COMFYD_COMFYUI_DIR": comfyUI, "COMFYD_COMFYUI_PYTHON": filepath.Join(comfyUI, ".venv", "bin", "python"), "COMFYD_COMFYUI_ARGS": "--cpu",
			"COMFYD_MODELS_DIR": "{volumes}/comfyd-models", "COMFYD_WORK_DIR": "{container}/comfyd",
		},
		Log: t.Logf,
	}
	for _, f := range change {
		f(&o)
	}
	m, err := Start(o)
	require.NoError(t, err)
	t.Cleanup(m.Stop)
	ctx, done := context.WithTimeout(context.Background(), 5*time.Minute)
	defer done()
	_, err = m.Deploy(ctx)
	require.NoError(t, err)
	return m
}

// appFile finds the product's app from the folder of any package.
func appFile(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for {
		file := filepath.Join(dir, "modal", "modal_comfy_api.py")
		if _, err := os.Stat(file); err == nil {
			return file
		}
		require.NotEqual(t, filepath.Dir(dir), dir, "modal/modal_comfy_api.py is in no folder above")
		dir = filepath.Dir(dir)
	}
}
