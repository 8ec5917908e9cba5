package localcomfy

import (
	"bytes"
	"fmt"
	"image/jpeg"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend/backendtest"
)

// makeModel writes a diffusion model of ComfyUI's own making with random weights, the smallest that its loader knows:
// 53 MB. What it paints is noise.
const makeModel = `
import sys, torch, comfy.cli_args
comfy.cli_args.args.cpu = True
import comfy.ops
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import save_file
model = UNetModel(image_size=32, in_channels=4, out_channels=4, model_channels=320, num_res_blocks=[1], channel_mult=[1],
    transformer_depth=[1], transformer_depth_output=[1, 1], transformer_depth_middle=1, context_dim=1024, num_head_channels=64,
    use_spatial_transformer=True, use_linear_in_transformer=True, operations=comfy.ops.disable_weight_init)
save_file({k: (torch.randn(v.shape) * 0.02).half() for k, v in model.state_dict().items()}, sys.argv[1])
`

// sampled runs a sampler without a prompt: LotusConditioning brings its own.
const sampled = `{"1":{"class_type":"UNETLoader","inputs":{"unet_name":"random.safetensors","weight_dtype":"default"}},
	"2":{"class_type":"LotusConditioning","inputs":{}},
	"3":{"class_type":"EmptyLatentImage","inputs":{"width":64,"height":64,"batch_size":1}},
	"4":{"class_type":"KSampler","inputs":{"model":["1",0],"positive":["2",0],"negative":["2",0],"latent_image":["3",0],"seed":1,"steps":4,
		"cfg":1,"sampler_name":"euler","scheduler":"normal","denoise":1}},
	"5":{"class_type":"SaveLatent","inputs":{"samples":["4",0],"filename_prefix":"sampled"}}}`

// TestRealPreviews: the real ComfyUI, as it is started here, sends what a sampler has so far. Each picture has 512 pixels a
// side, however small the image is.
func TestRealPreviews(t *testing.T) {
	w := newReal(t)
	models := t.TempDir()
	model, paths := filepath.Join(models, "random.safetensors"), filepath.Join(models, "paths.yaml")
	require.NoError(t, os.WriteFile(paths, fmt.Appendf(nil, "test:\n  base_path: %s\n  diffusion_models: .\n", models), 0o600))
	cmd := exec.CommandContext(t.Context(), filepath.Join(w.o.Dir, ".venv", "bin", "python"), "-c", makeModel, model)
	cmd.Dir = w.o.Dir
	cmd.Env = append(environment(), "PYTHONPATH="+w.o.Dir, "PYTHONDONTWRITEBYTECODE=1")
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)

	w.o.Args, w.o.Previews = []string{"--extra-model-paths-config", paths}, true
	began := time.Now()
	b, err := Start(t.Context(), w.o)
	require.NoError(t, err)
	defer b.Close()
	w.again(t, b, 0, began)
	rec := backendtest.NewRecorder()
	out, err := b.Run(t.Context(), backendtest.Prompt(t, sampled), nil, rec)
	require.NoError(t, err)
	require.Len(t, out.Files, 1)
	shown := rec.Previews()
	require.NotEmpty(t, shown)
	for _, p := range shown {
		require.Equal(t, "4 image/jpeg", p.NodeID+" "+p.ContentType)
		picture, err := jpeg.Decode(bytes.NewReader(p.Data))
		require.NoError(t, err)
		require.Equal(t, 512, picture.Bounds().Dx())
	}
	t.Logf("%d previews of 4 steps, the first of %d bytes", len(shown), len(shown[0].Data))
}
