package fakemodal_test

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

// TestDeployRequest holds what `modal deploy` sends for the product's app against the PRD, sections 2.2 and 2.3.
func TestDeployRequest(t *testing.T) {
	m := fakemodal.Product(t, func(o *fakemodal.Options) { o.DeployEnv = nil }) // the defaults
	d := m.Deployment("comfyd")
	require.NotNil(t, d)
	c := d.Functions["ComfyUI.*"]
	require.Equal(t, []string{"run", "warm"}, c.Methods)
	require.Equal(t, []string{"L40S"}, c.GPUs)
	require.Equal(t, 4.0, c.CPU)
	require.Equal(t, 40960, c.MemoryMiB)
	require.Equal(t, time.Hour, c.Timeout)
	require.Equal(t, 10*time.Minute, c.StartupTimeout)
	require.Equal(t, 2*time.Minute, c.ScaledownWindow)
	require.Equal(t, 0, c.MinContainers)
	require.Equal(t, 8, c.MaxContainers)
	require.Equal(t, 0, c.Retries, "Temporal owns the retries")
	require.True(t, c.MemorySnapshot)
	require.False(t, c.GPUSnapshot)
	require.False(t, c.Concurrent, "one prompt a container")
	require.Empty(t, c.Regions)
	require.Equal(t, map[string]string{"/models": "comfyd-models"}, c.Volumes)
	require.Empty(t, c.Secrets, "the token is not where node packs run")

	var lines []string
	for _, l := range c.Layers {
		require.Empty(t, l.Secrets)
		lines = append(lines, l.Lines...)
	}
	said := func(words ...string) func(string) bool {
		return func(line string) bool {
			return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
		}
	}
	for _, pack := range []string{"comfyui-custom-scripts", "comfyui-impact-pack", "rgthree-comfy", "was-node-suite-comfyui", "cg-use-everywhere",
		"comfyui-image-saver", "comfyui-tooling-nodes", "comfyui-supir"} {
		require.True(t, slices.ContainsFunc(lines, said("comfy ", " node install ", " "+pack+"@")), "no layer installs %s at a version", pack)
	}
	require.True(t, slices.ContainsFunc(lines, said("git clone --recursive", "https://github.com/ssitu/ComfyUI_UltimateSDUpscale", "/custom_nodes/")))
	require.True(t, slices.ContainsFunc(lines, said("comfy ", " install --version ")))
	verify := slices.IndexFunc(lines, said("verify_nodes"))
	last := len(lines) - 1
	for ; !strings.Contains(lines[last], "custom_nodes"); last-- {
	}
	require.Greater(t, verify, last, "the packs are verified after the last of them is there")

	models := d.Functions["download_models"]
	step := models.Layers[slices.IndexFunc(models.Layers, func(l fakemodal.Layer) bool { return l.BuildFunction != "" })]
	require.Equal(t, []string{"HUGGINGFACE_ACCESS_TOKEN"}, step.Secrets, "the download step has the token")
	require.Equal(t, map[string]string{"/models": "comfyd-models"}, step.Volumes)
	require.Empty(t, step.GPU, "on a CPU")
	require.Equal(t, prdModels, entries(t, step.BuildArgs), "and downloads these")
	for tag, f := range d.Functions {
		if tag != "ComfyUI.*" {
			require.Empty(t, f.GPUs, "%s needs no GPU", tag)
		}
		var token []string
		if slices.Contains([]string{"download_models", "add_model", "check"}, tag) { // none of them starts ComfyUI
			token = step.Secrets
		}
		require.Equal(t, token, f.Secrets, tag)
	}
}

// prdModels are the PRD's, 2.3: folder, name and address.
var prdModels = []string{
	"vae/ae.safetensors https://huggingface.co/black-forest-labs/FLUX.1-dev/resolve/main/ae.safetensors",
	"upscale_models/4x-UltraSharp.pth https://huggingface.co/datasets/Kizi-Art/Upscale/resolve/fa98e357882a23b8e7928957a39462fbfaee1af5/4x-UltraSharp.pth",
	"upscale_models/4x_foolhardy_Remacri.pth https://huggingface.co/FacehugmanIII/4x_foolhardy_Remacri/resolve/main/4x_foolhardy_Remacri.pth",
	"unet/flux1-dev.safetensors https://huggingface.co/black-forest-labs/FLUX.1-dev/resolve/main/flux1-dev.safetensors",
	"clip/t5xxl_fp8_e4m3fn.safetensors https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main/t5xxl_fp8_e4m3fn.safetensors",
	"clip/clip_l.safetensors https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main/clip_l.safetensors",
	"checkpoints/juggernautXL_v9Rdphoto2Lightning.safetensors https://huggingface.co/AiWise/Juggernaut-XL-V9-GE-RDPhoto2-Lightning_4S/resolve/main/juggernautXL_v9Rdphoto2Lightning.safetensors",
	"checkpoints/SUPIR-v0Q.ckpt https://huggingface.co/camenduru/SUPIR/resolve/main/SUPIR-v0Q.ckpt",
}

// entries reads the models out of the download step's pickled arguments.
func entries(t *testing.T, args []byte) []string {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), python(t), "-c",
		"import pickle, sys\nfor e in pickle.load(sys.stdin.buffer)[1]['entries']: print(e['folder'] + '/' + e['name'], e['url'])")
	cmd.Stdin = bytes.NewReader(args)
	out, err := cmd.Output()
	require.NoError(t, err)
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
