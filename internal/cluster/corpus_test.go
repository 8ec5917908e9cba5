package cluster_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/cluster"
)

// TestClusterCorpus sends testdata to a real ComfyUI through both replicas: eight of them, or all.
func TestClusterCorpus(t *testing.T) {
	comfyui := os.Getenv("COMFYD_TEST_COMFYUI")
	if comfyui == "" {
		t.Skip("COMFYD_TEST_COMFYUI is not set: make test starts a real ComfyUI and sets it")
	}
	var entries []struct {
		Name, File string
		Uploads    []any
		Expect     struct {
			Status string
			Images []struct {
				Node  string
				Count int
			}
		}
	}
	require.NoError(t, json.Unmarshal(testdata(t, "index.json"), &entries))
	some := []string{"single", "batch4", "subfolder_prefix", "load_image", "text_only", "latent_save", "fail_bad_regex", "rej_missing_model"}
	c := cluster.New(t, "COMFYUI_URLS="+comfyui)
	seen := 0
	for _, e := range entries {
		if !long() && !slices.Contains(some, e.Name) {
			continue
		}
		seen++
		t.Run(e.Name, func(t *testing.T) {
			body := map[string]any{"workflow": json.RawMessage(testdata(t, e.File))}
			var images []any
			for _, up := range e.Uploads {
				file, name := fmt.Sprint(up), fmt.Sprint(up)
				if m, ok := up.(map[string]any); ok {
					file = m["file"].(string)
					name = path.Join(m["subfolder"].(string), file)
				}
				images = append(images, map[string]any{"name": name, "image": base64.StdEncoding.EncodeToString(testdata(t, "inputs/"+file))})
			}
			if images != nil {
				body["images"] = images
			}
			raw, err := json.Marshal(body)
			require.NoError(t, err)
			u := newUsers(t, c)
			a, err := u.call("POST", "/submit_workflow", raw, "")
			require.NoError(t, err)
			if e.Expect.Status == "REJECTED" && a.code == 400 {
				return
			}
			require.Equal(t, 202, a.code, "%v", a.body)
			status := u.follow(&record{id: a.body["id"].(string)})
			if e.Expect.Status == "COMPLETED" {
				require.Empty(t, u.wrong)
			}
			if e.Expect.Status == "REJECTED" { // an api of its own cannot ask the backends anew, and accepts in doubt
				require.Equal(t, "invalid_workflow", status["code"], "%v", status)
				return
			}
			require.Equal(t, e.Expect.Status, status["status"], "%v", status["error"])
			if e.Expect.Status == "COMPLETED" {
				out, _ := status["output"].(map[string]any)
				pictures, _ := out["images"].([]any)
				others, _ := out["files"].([]any)
				of := map[any]int{}
				for _, f := range slices.Concat(pictures, others) {
					of[f.(map[string]any)["node_id"]]++
				}
				for _, want := range e.Expect.Images {
					require.Equal(t, want.Count, of[want.Node], "files of node %s", want.Node)
				}
			}
		})
	}
	require.GreaterOrEqual(t, seen, len(some), "the names are those of testdata")
}
