package comfyui

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

func TestInputPath(t *testing.T) {
	sum := "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
	for name, c := range map[string]struct{ job, file, want string }{
		"plain":     {"0a-1_B", "photo.png", "comfyd/0a-1_B/2d711642b726_photo.png"},
		"folder":    {"j", "a/b/photo.png", "comfyd/j/2d711642b726_photo.png"},
		"windows":   {"j", `C:\x\photo.png`, "comfyd/j/2d711642b726_photo.png"},
		"up":        {"j", "../../..", "comfyd/j/2d711642b726_.."},
		"odd":       {"j", "a b\"'ä\n[output].png", "comfyd/j/2d711642b726_a_b_output_.png"},
		"long":      {"j", strings.Repeat("x", 300) + ".webp", "comfyd/j/2d711642b726_" + strings.Repeat("x", 75) + ".webp"},
		"odd job":   {"../up", "p.png", "comfyd/fd1e0fe8cbf8fdc75c6ae3c8c5e0bc4b/2d711642b726_p.png"},
		"long job":  {strings.Repeat("j", 65), "p.png", ""},
		"empty job": {"", "p.png", "comfyd/e3b0c44298fc1c149afbf4c8996fb924/2d711642b726_p.png"},
	} {
		t.Run(name, func(t *testing.T) {
			got := InputPath(c.job, backend.Input{Name: c.file, SHA256: sum})
			require.Len(t, strings.Split(got, "/"), 3)
			if c.want != "" && name != "odd job" {
				require.Equal(t, c.want, got)
			}
			require.NotContains(t, got, "/../")
		})
	}
}

// A text that happens to read like a file's name is not a file.
func TestTextsAreNotFiles(t *testing.T) {
	g, err := comfy.ParseGraph([]byte(`{"1":{"class_type":"LoadImage","inputs":{"image":"cat"}},
		"2":{"class_type":"StringConcatenate","inputs":{"string_a":"cat","string_b":"dog.png","delimiter":" "}},
		"3":{"class_type":"PreviewAny","inputs":{"source":["2",0]}},
		"4":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"dog.png"}}}`))
	require.NoError(t, err)
	p := NewPlan(g, nil)
	p.IsText = func(_, input string) bool { return input != "image" && input != "images" && input != "source" }
	body, err := Body(&backend.Prompt{ID: "id", Graph: g}, p, map[string]string{"cat": "comfyd/job/1_cat", "dog.png": "comfyd/job/2_dog.png"}, false)
	require.NoError(t, err)
	var posted struct {
		Prompt map[string]struct{ Inputs map[string]any }
	}
	require.NoError(t, json.Unmarshal(body, &posted))
	require.Equal(t, "comfyd/job/1_cat", posted.Prompt["1"].Inputs["image"])
	require.Equal(t, "cat", posted.Prompt["2"].Inputs["string_a"])
	require.Equal(t, "comfyd/job/2_dog.png", posted.Prompt["2"].Inputs["string_b"], "some nodes take a path as text")
	require.Equal(t, "dog.png", posted.Prompt["4"].Inputs["filename_prefix"])
}
