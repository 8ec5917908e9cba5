package fakemodal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

// TestProduct runs the product's own app as `modal deploy` deploys it: a real job on a real ComfyUI, asked for in Go.
func TestProduct(t *testing.T) {
	comfyui := os.Getenv("COMFYD_TEST_COMFYUI_DIR")
	if comfyui == "" {
		t.Skip("COMFYD_TEST_COMFYUI_DIR is not set: it names a ComfyUI with .venv/bin/python in it (make test sets it)")
	}
	opts := options(t, t.TempDir())
	opts.AppFile = "../../modal/modal_comfy_api.py"
	opts.Secrets = map[string]map[string]string{"HUGGINGFACE_ACCESS_TOKEN": {"HUGGINGFACE_ACCESS_TOKEN": "hf_test"}}
	opts.Env = map[string]string{"COMFYD_COMFYUI_DIR": comfyui, "COMFYD_COMFYUI_PYTHON": filepath.Join(comfyui, ".venv", "bin", "python"),
		"COMFYD_COMFYUI_ARGS": "--cpu", "COMFYD_WORK_DIR": fakemodal.ContainerDir + "/work", "COMFYD_MODELS_DIR": t.TempDir()}
	s, err := fakemodal.Start(opts)
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	d, err := s.Deploy(testContext(t))
	require.NoError(t, err)
	w := &world{Server: s, t: t, opts: opts}
	w.client = w.connect()
	ctx := testContext(t)
	cls, err := w.client.Cls.FromName(ctx, d.App, "ComfyUI", nil)
	require.NoError(t, err)
	instance, err := cls.Instance(ctx, nil)
	require.NoError(t, err)
	run, err := instance.Method("run")
	require.NoError(t, err)

	workflow := `{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":32,"batch_size":1,"color":255}},` +
		`"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"product"}}}`
	prompt := "3f0c1f3e-5a52-4b44-9a43-4c2f2e5b7a10"
	fc := w.spawn(run, workflow, "job-1", `{"prompt_id":"`+prompt+`"}`)
	starts, done := context.WithTimeout(t.Context(), 10*time.Minute) // the real ComfyUI, perhaps beside other tests
	defer done()
	v, err := fc.Get(starts, nil)
	require.NoError(t, err, s.ContainerLog(s.Containers()[0].ID))
	line, files, found := bytes.Cut(v.([]byte), []byte("\n"))
	require.True(t, found)
	var manifest struct {
		End       string
		Container struct{ ID string }
		Files     []struct {
			Filename     string
			Offset, Size int
		}
	}
	require.NoError(t, json.Unmarshal(line, &manifest))
	require.Equal(t, "history", manifest.End)
	require.Equal(t, s.Containers()[0].ID, manifest.Container.ID)
	require.Len(t, manifest.Files, 1)
	f := manifest.Files[0]
	img, err := png.Decode(bytes.NewReader(files[f.Offset : f.Offset+f.Size]))
	require.NoError(t, err)
	require.Equal(t, 64, img.Bounds().Dx())
	require.Equal(t, 32, img.Bounds().Dy())

	locate, err := w.client.Functions.FromName(testContext(t), d.App, "locate", nil)
	require.NoError(t, err)
	require.Equal(t, fc.FunctionCallID, w.run(locate, prompt), "the ledger knows the call by Modal's own ID")
}
