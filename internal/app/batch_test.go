package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestInputsByURLAndBatches on a real ComfyUI: files that a submission names by URL, several jobs of one workflow, and what
// the backends say that they have.
func TestInputsByURLAndBatches(t *testing.T) {
	a := start(t, map[string]string{"COMFYUI_URLS": comfyURL(t), "COMFYD_PRIVATE_NETWORKS": "127.0.0.1/32"})
	a.ready()
	files := httptest.NewServer(http.FileServer(http.Dir("../../testdata/inputs")))
	t.Cleanup(files.Close)
	t.Run("inputs by URL", func(t *testing.T) {
		a := *a
		a.t = t
		body := map[string]any{
			"workflow": json.RawMessage(testdata(t, "load_image.json")),
			"images":   []any{map[string]any{"name": "gradient.png", "image": files.URL + "/gradient.png?signature=x"}},
		}
		require.NotEmpty(t, outputs(t, a.finish(a.submit(body))))
		body["images"].([]any)[0].(map[string]any)["image"] = "https://127.0.0.2/gradient.png"
		r := a.do("POST", "/submit_workflow", body)
		require.Equal(t, 422, r.code, "%v", r.body)
	})
	t.Run("a batch", func(t *testing.T) {
		a := *a
		a.t = t
		body := map[string]any{
			"workflow": json.RawMessage(`{"1":{"class_type":"LoadImage","inputs":{"image":"gradient.png"}},
				"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":1,"strength":0.5}},
				"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"batch"}}}`),
			"images": []any{map[string]any{"name": "gradient.png", "image": files.URL + "/gradient.png"}},
		}
		variations := []any{map[string]any{"2.strength": 0}, map[string]any{"2.strength": 0.1}, map[string]any{"2.strength": 0.2, "3.filename_prefix": "other"}, map[string]any{}}
		body["variations"] = append(variations, map[string]any{"2.strength": 7})
		r := a.do("POST", "/batch", body)
		require.Equal(t, 400, r.code, "%v", r.body)
		require.Contains(t, r.body["error"], "variations[4]: ", "ComfyUI takes 0 to 1")
		require.Contains(t, r.body["node_errors"], "2")

		body["variations"] = variations
		began := time.Now()
		different := a.finishAll(a.do("POST", "/batch", body, "Idempotency-Key", "batch"))
		t.Logf("4 jobs took %s", time.Since(began))
		require.Len(t, different, 4)
		require.Equal(t, "true", a.do("POST", "/batch", body, "Idempotency-Key", "batch").header.Get("Idempotent-Replayed"))

		delete(body, "variations")
		body["seeds"] = 3
		require.Len(t, a.finishAll(a.do("POST", "/batch", body)), 3, "each seed makes another picture")
	})
	t.Run("models and nodes", func(t *testing.T) {
		a := *a
		a.t = t
		r := a.do("GET", "/nodes/LoadImage", nil)
		require.Equal(t, 200, r.code, "%v", r.body)
		image := r.body["definition"].(map[string]any)["input"].(map[string]any)["required"].(map[string]any)["image"].([]any)
		require.Empty(t, image[0], "what lies in ComfyUI's input folder is other people's, too")
		require.Equal(t, 404, a.do("GET", "/nodes/LoadImg", nil).code)
		r = a.do("GET", "/nodes", nil)
		require.Greater(t, len(r.body["nodes"].([]any)), 300)
		require.Contains(t, a.do("GET", "/models", nil).body["models"], "checkpoints")
		require.Equal(t, 304, a.do("GET", "/models", nil, "If-None-Match", a.do("GET", "/models", nil).header.Get("ETag")).code)
	})
}

// finishAll waits for the jobs of a batch, looks for them in the list, and returns their pictures by hash.
func (a *api) finishAll(r answer) map[any]bool {
	a.t.Helper()
	require.Equal(a.t, 202, r.code, "%v", r.body)
	jobs := r.body["jobs"].([]any)
	pictures := map[any]bool{}
	for _, j := range jobs {
		for _, o := range outputs(a.t, a.finish(j.(map[string]any)["id"].(string))) {
			pictures[o["sha256"]] = true
		}
	}
	label := fmt.Sprintf("comfyd_batch=%s", r.body["batch_id"])
	require.Eventually(a.t, func() bool {
		listed := a.do("GET", "/jobs?metadata="+url.QueryEscape(label)+"&status=COMPLETED", nil)
		return len(listed.body["jobs"].([]any)) == len(jobs)
	}, 2*time.Minute, 200*time.Millisecond)
	return pictures
}
