// Package examples_test holds the examples to the lists that the Modal app is built from (modal/nodes.toml,
// modal/models.toml) and to PRD.txt: what an example names is there, and what the PRD asks for has an example.
package examples_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/examples"
	"github.com/comfyd/comfyd/internal/catalog"
)

// What the PRD asks for (PRD.txt 2.2 and 2.3).
var (
	prdPacks = []string{
		"comfyui-custom-scripts", "comfyui-impact-pack", "rgthree-comfy", "was-node-suite-comfyui", "cg-use-everywhere",
		"comfyui-image-saver", "comfyui-tooling-nodes", "comfyui-supir", "ComfyUI_UltimateSDUpscale",
	}
	prdModels = []string{
		"vae/ae.safetensors", "upscale_models/4x-UltraSharp.pth", "upscale_models/4x_foolhardy_Remacri.pth",
		"unet/flux1-dev.safetensors", "clip/t5xxl_fp8_e4m3fn.safetensors", "clip/clip_l.safetensors",
		"checkpoints/juggernautXL_v9Rdphoto2Lightning.safetensors", "checkpoints/SUPIR-v0Q.ckpt",
	}
)

// folderOf says which model folder a loader reads.
var folderOf = map[string]string{
	"UNETLoader": "unet", "DualCLIPLoader": "clip", "VAELoader": "vae", "CheckpointLoaderSimple": "checkpoints",
	"UpscaleModelLoader": "upscale_models", "SUPIR_model_loader_v2": "checkpoints",
}

// modelEndings are those by which ComfyUI knows a model file (folder_paths.supported_pt_extensions), and two of packs'.
var modelEndings = []string{".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft", ".onnx", ".gguf"}

type lists struct {
	packOf map[string]string // class to pack
	models []string          // folder/name
}

func readLists(t *testing.T) lists {
	t.Helper()
	var nodes struct {
		Pack []struct {
			Name    string
			Classes []string
		}
	}
	var models struct {
		Model []struct{ Folder, Name string }
	}
	for file, into := range map[string]any{"nodes.toml": &nodes, "models.toml": &models} {
		data, err := os.ReadFile(filepath.Join("..", "modal", file))
		require.NoError(t, err)
		require.NoError(t, toml.Unmarshal(data, into), file)
	}
	l := lists{packOf: map[string]string{}}
	for _, p := range nodes.Pack {
		for _, class := range p.Classes {
			require.Empty(t, l.packOf[class], "two packs claim the class %s", class)
			l.packOf[class] = p.Name
		}
	}
	for _, m := range models.Model {
		l.models = append(l.models, path.Join(m.Folder, m.Name))
	}
	return l
}

// readExamples parses every example as a submission would be; by file name.
func readExamples(t *testing.T) map[string]*comfy.Graph {
	t.Helper()
	all, err := examples.All()
	require.NoError(t, err)
	require.NotEmpty(t, all)
	graphs := map[string]*comfy.Graph{}
	for _, e := range all {
		g, err := comfy.ParseGraph(e.Workflow)
		require.NoError(t, err, e.Name)
		graphs[e.Name+".json"] = g
	}
	return graphs
}

// modelsOf lists the model files that a node names, as folder/name.
func modelsOf(t *testing.T, n *comfy.Node) (names []string) {
	t.Helper()
	for input, raw := range n.Inputs {
		var value string
		if json.Unmarshal(raw, &value) != nil || !slices.Contains(modelEndings, strings.ToLower(path.Ext(value))) {
			continue
		}
		folder := folderOf[n.ClassType]
		require.NotEmpty(t, folder, "%s.%s names the model %s: say in folderOf where that class looks", n.ClassType, input, value)
		names = append(names, path.Join(folder, value))
	}
	return names
}

func TestNamesAreInTheLists(t *testing.T) {
	l := readLists(t)
	usedPacks, usedModels := map[string]bool{}, map[string]bool{}
	for file, g := range readExamples(t) {
		for id, n := range g.Nodes {
			usedPacks[l.packOf[n.ClassType]] = true
			for _, model := range modelsOf(t, n) {
				require.Contains(t, l.models, model, "%s, node %s", file, id)
				usedModels[model] = true
			}
		}
	}
	for _, pack := range prdPacks {
		require.True(t, usedPacks[pack], "no example uses the pack %s by a class that modal/nodes.toml lists", pack)
	}
	for _, model := range prdModels {
		require.Contains(t, l.models, model, "modal/models.toml")
		require.True(t, usedModels[model], "no example uses the model %s", model)
	}
}

func TestReadmeHasEveryExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	for file := range readExamples(t) {
		require.Contains(t, string(readme), "`"+file+"`")
	}
}

// What the lists do not have must be ComfyUI's own, and given as ComfyUI wants it.
func TestOtherNodesAreComfyUIsOwn(t *testing.T) {
	info := objectInfo(t)
	core, err := catalog.Parse(info)
	require.NoError(t, err)
	var classes map[string]struct {
		Input struct{ Required, Optional map[string]json.RawMessage }
	}
	require.NoError(t, json.Unmarshal(catalog.Sanitize(info), &classes))
	packOf := readLists(t).packOf
	for file, g := range readExamples(t) {
		for id, n := range g.Nodes {
			if packOf[n.ClassType] != "" {
				continue
			}
			require.True(t, core.Has(n.ClassType), "%s, node %s: %s is neither ComfyUI's nor a class of modal/nodes.toml", file, id, n.ClassType)
			input := classes[n.ClassType].Input
			for name := range input.Required {
				require.Contains(t, n.Inputs, name, "%s, node %s (%s) lacks an input", file, id, n.ClassType)
			}
			for name := range n.Inputs {
				_, required := input.Required[name]
				_, optional := input.Optional[name]
				require.True(t, required || optional, "%s, node %s: %s has no input %s", file, id, n.ClassType, name)
			}
		}
	}
}

// objectInfo is what the ComfyUI of COMFYD_TEST_COMFYUI says about its nodes.
func objectInfo(t *testing.T) []byte {
	t.Helper()
	url := os.Getenv("COMFYD_TEST_COMFYUI")
	if url == "" {
		t.Skip("COMFYD_TEST_COMFYUI is not set: make test starts a real ComfyUI and sets it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/object_info", nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	info, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return info
}
