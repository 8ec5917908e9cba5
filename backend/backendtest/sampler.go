package backendtest

import (
	"bytes"
	"fmt"
	"image/jpeg"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
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

// Sampled is a graph with a sampler, node 4, of the model that MakeModel makes, that takes so many steps. It needs no text
// encoder: LotusConditioning brings its own prompt.
func Sampled(steps int) string { return fmt.Sprintf(sampled, steps) }

const sampled = `{"1":{"class_type":"UNETLoader","inputs":{"unet_name":"random.safetensors","weight_dtype":"default"}},
	"2":{"class_type":"LotusConditioning","inputs":{}},
	"3":{"class_type":"EmptyLatentImage","inputs":{"width":64,"height":64,"batch_size":1}},
	"4":{"class_type":"KSampler","inputs":{"model":["1",0],"positive":["2",0],"negative":["2",0],"latent_image":["3",0],"seed":1,"steps":%d,
		"cfg":1,"sampler_name":"euler","scheduler":"normal","denoise":1}},
	"5":{"class_type":"SaveLatent","inputs":{"samples":["4",0],"filename_prefix":"sampled"}}}`

// MakeModel puts the model of Sampled into a folder of models, with the real ComfyUI in the folder comfyui.
func MakeModel(t *testing.T, comfyui, models string) {
	t.Helper()
	folder := filepath.Join(models, "diffusion_models")
	require.NoError(t, os.MkdirAll(folder, 0o700))
	cmd := exec.CommandContext(t.Context(), filepath.Join(comfyui, ".venv", "bin", "python"), "-c", makeModel, filepath.Join(folder, "random.safetensors"))
	cmd.Dir = comfyui
	cmd.Env = append(os.Environ(), "PYTHONPATH="+comfyui, "PYTHONDONTWRITEBYTECODE=1")
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)
}

// RequirePreviews runs Sampled and looks at the pictures on the way: ComfyUI's own have 512 pixels a side, however small
// the image is.
func RequirePreviews(t *testing.T, b backend.Backend, steps int) {
	t.Helper()
	rec := NewRecorder()
	out, err := b.Run(t.Context(), Prompt(t, Sampled(steps)), nil, rec)
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
	t.Logf("%d previews of %d steps, the first of %d bytes", len(shown), steps, len(shown[0].Data))
}
