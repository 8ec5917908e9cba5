package app_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"image"
	_ "image/png"
	"path"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// entry is one workflow of testdata and what it must give.
type entry struct {
	Name    string `json:"name"`
	File    string `json:"file"`
	Slow    bool   `json:"slow"`
	Poison  bool   `json:"poison"`
	Uploads []any  `json:"uploads"`
	Expect  struct {
		Status string `json:"status"`
		Images []struct {
			Node      string `json:"node"`
			Count     int    `json:"count"`
			W, H      int
			Type      string `json:"type"`
			Subfolder string `json:"subfolder"`
			Ext       string `json:"ext"`
		} `json:"images"`
		Total      int                       `json:"n_images"`
		MinBytes   int                       `json:"min_bytes"`
		Other      map[string]map[string]any `json:"other"`
		Error      string                    `json:"error_contains"`
		FailedNode string                    `json:"failed_node"`
	} `json:"expect"`
}

// body is the submission, with the entry's input files.
func (e entry) body(t *testing.T) map[string]any {
	body := map[string]any{"workflow": json.RawMessage(testdata(t, e.File))}
	var images []any
	for _, u := range e.Uploads {
		file, name := "", ""
		switch u := u.(type) {
		case string:
			file, name = u, u
		case map[string]any:
			file = u["file"].(string)
			name = path.Join(u["subfolder"].(string), file)
		}
		images = append(images, map[string]any{"name": name, "image": base64.StdEncoding.EncodeToString(testdata(t, "inputs/"+file))})
	}
	if images != nil {
		body["images"] = images
	}
	return body
}

// TestCorpus sends every workflow of testdata over HTTP to a real ComfyUI.
func TestCorpus(t *testing.T) {
	a := start(t, map[string]string{"COMFYUI_URLS": comfyURL(t)})
	a.ready()
	corpus(t, a)
}

func corpus(t *testing.T, a *api) {
	var entries []entry
	require.NoError(t, json.Unmarshal(testdata(t, "index.json"), &entries))
	require.Len(t, entries, 50)
	for _, e := range entries {
		t.Run(e.Name, func(t *testing.T) {
			a := *a
			a.t = t
			if e.Expect.Status == "REJECTED" {
				r := a.do("POST", "/submit_workflow", e.body(t))
				require.Equal(t, 400, r.code, "%v", r.body)
				require.NotEmpty(t, r.body["error"])
				require.Contains(t, []any{"invalid_workflow", "workflow_format_ui"}, r.body["code"])
				return
			}
			status := a.finish(a.submit(e.body(t)))
			if e.Expect.Status == "FAILED" {
				require.Equal(t, "FAILED", status["status"], "%v", status)
				require.Contains(t, status["error"], e.Expect.Error)
				require.Equal(t, "node_failed", status["code"])
				require.Equal(t, e.Expect.FailedNode, status["node_id"])
				return
			}
			e.checkOutputs(t, status)
		})
	}
	after := a.finish(a.submit(map[string]any{"workflow": graph(1, "after the poison")}))
	require.Equal(t, "COMPLETED", after["status"], "nothing in the corpus stops the backend for others")
}

func (e entry) checkOutputs(t *testing.T, status map[string]any) {
	all := outputs(t, status)
	pictures := 0
	for _, want := range e.Expect.Images {
		n := 0
		for _, o := range all {
			if o["node_id"] != want.Node {
				continue
			}
			n++
			raw := bytesOf(t, o)
			sum := sha256.Sum256(raw)
			require.Equal(t, hex.EncodeToString(sum[:]), o["sha256"])
			require.EqualValues(t, len(raw), o["size_bytes"])
			require.GreaterOrEqual(t, len(raw), e.Expect.MinBytes)
			if want.Subfolder != "" {
				require.Equal(t, want.Subfolder, o["subfolder"])
			}
			require.Equal(t, want.Type == "temp", o["temp"] == true)
			if want.Ext != "" {
				require.Equal(t, want.Ext, path.Ext(o["filename"].(string)))
			}
			if want.W > 0 {
				require.EqualValues(t, want.W, o["width"])
				require.EqualValues(t, want.H, o["height"])
			}
			if want.W > 0 && path.Ext(o["filename"].(string)) == ".png" {
				im, _, err := image.Decode(bytes.NewReader(raw))
				require.NoError(t, err)
				require.Equal(t, image.Pt(want.W, want.H), im.Bounds().Size())
			}
		}
		require.Equal(t, want.Count, n, "files of node %s", want.Node)
		pictures += n
	}
	require.Equal(t, e.Expect.Total, pictures)
	for node, kinds := range e.Expect.Other {
		e.checkOther(t, status, all, node, kinds)
	}
}

func (e entry) checkOther(t *testing.T, status map[string]any, all []map[string]any, node string, kinds map[string]any) {
	for kind, want := range kinds {
		if texts, ok := want.([]any); ok {
			var got []any
			for _, x := range status["output"].(map[string]any)["texts"].([]any) {
				if x.(map[string]any)["node_id"] == node {
					got = append(got, x.(map[string]any)["text"])
				}
			}
			require.Equal(t, texts, got)
			continue
		}
		n := 0
		for _, o := range all {
			if o["node_id"] == node {
				require.NotEmpty(t, bytesOf(t, o))
				n++
			}
		}
		require.EqualValues(t, want, n, "%s of node %s", kind, node)
	}
}

// ready waits until a backend is.
func (a *api) ready() {
	a.t.Helper()
	require.Eventually(a.t, func() bool { return a.do("GET", "/readyz", nil).code == 200 }, 2*time.Minute, 100*time.Millisecond)
}
