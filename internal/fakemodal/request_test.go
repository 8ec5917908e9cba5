package fakemodal_test

import (
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
	for tag, f := range d.Functions {
		if tag != "ComfyUI.*" {
			require.Empty(t, f.GPUs, "%s needs no GPU", tag)
		}
	}
}
