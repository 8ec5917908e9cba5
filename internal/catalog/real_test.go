package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
)

// realComfyUI is the one that COMFYD_TEST_COMFYUI names.
type realComfyUI struct {
	url string
	*testing.T
}

func real(t *testing.T) realComfyUI {
	url := os.Getenv("COMFYD_TEST_COMFYUI")
	if url == "" {
		t.Skip("COMFYD_TEST_COMFYUI is not set: give the address of a ComfyUI to compare our verdicts with its own")
	}
	return realComfyUI{url, t}
}

func (r realComfyUI) call(method, path, contentType string, body io.Reader) (int, []byte) {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, body)
	require.NoError(r, err)
	req.Header.Set("Content-Type", contentType)
	res, err := http.DefaultClient.Do(req)
	require.NoError(r, err)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	require.NoError(r, err)
	return res.StatusCode, data
}

func (r realComfyUI) post(path string, v any) (int, []byte) {
	r.Helper()
	body, err := json.Marshal(v)
	require.NoError(r, err)
	return r.call(http.MethodPost, path, "application/json", bytes.NewReader(body))
}

func (r realComfyUI) catalog() *Catalog {
	r.Helper()
	_, raw := r.call(http.MethodGet, "/object_info", "", nil)
	c, err := Parse(raw)
	require.NoError(r, err)
	return c
}

// refuses posts a prompt, takes it back, and says whether ComfyUI refused it or a part of it.
func (r realComfyUI) refuses(workflow []byte) (bool, string) {
	r.Helper()
	id := uuid.NewString()
	status, data := r.post("/prompt", map[string]any{"prompt": json.RawMessage(workflow), "prompt_id": id, "client_id": id})
	r.post("/queue", map[string]any{"delete": []string{id}})
	r.post("/interrupt", map[string]any{"prompt_id": id})
	var answer struct {
		NodeErrors map[string]any `json:"node_errors"`
	}
	if status == http.StatusOK {
		require.NoError(r, json.Unmarshal(Sanitize(data), &answer))
	}
	return status != http.StatusOK || len(answer.NodeErrors) > 0, fmt.Sprintf("%d %.400s", status, data)
}

// upload puts the corpus' input files into ComfyUI's input folder.
func (r realComfyUI) upload(e entry) {
	r.Helper()
	for _, name := range e.uploads(r) {
		data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "inputs", filepath.Base(name)))
		require.NoError(r, err)
		r.put(name, data)
	}
}

func (r realComfyUI) put(name string, data []byte) {
	r.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	file, err := form.CreateFormFile("image", filepath.Base(name))
	require.NoError(r, err)
	_, err = file.Write(data)
	require.NoError(r, err)
	require.NoError(r, form.WriteField("overwrite", "true"))
	if dir := filepath.Dir(name); dir != "." {
		require.NoError(r, form.WriteField("subfolder", dir))
	}
	require.NoError(r, form.Close())
	status, answer := r.call(http.MethodPost, "/upload/image", form.FormDataContentType(), &b)
	require.Equal(r, http.StatusOK, status, string(answer))
}

func TestRealCorpus(t *testing.T) {
	r := real(t)
	entries := corpus(t)
	for _, e := range entries {
		r.upload(e)
	}
	c := r.catalog()
	for _, e := range entries {
		workflow, err := os.ReadFile(filepath.Join("..", "..", "testdata", e.File))
		require.NoError(t, err)
		why := verdict(c, workflow, e.uploads(t))
		require.Equal(t, e.Expect.Status == "REJECTED", why != "", "%s: %s", e.Name, why)
		if e.Poison || e.Slow {
			continue
		}
		workflow, err = converted(c, workflow)
		require.NoError(t, err)
		refused, answer := r.refuses(workflow)
		require.Equal(t, refused, why != "", "%s: ComfyUI answers %s, we say %q", e.Name, answer, why)
	}
}

// Whatever we refuse, ComfyUI must refuse, too. How much of what it refuses we see is reported.
func TestRealMutations(t *testing.T) {
	r := real(t)
	entries := corpus(t)
	for _, e := range entries {
		r.upload(e)
	}
	c := r.catalog()
	seen := map[string]bool{}
	var tried, theirs, caught int
	missed := map[string]int{}
	for _, e := range entries {
		if e.Kind != "api" || e.Slow || e.Poison || e.Expect.Status == "REJECTED" || e.Name == "chain_200_nodes" {
			continue
		}
		workflow, err := os.ReadFile(filepath.Join("..", "..", "testdata", e.File))
		require.NoError(t, err)
		g, err := comfy.ParseGraph(workflow)
		require.NoError(t, err)
		for _, id := range g.IDs() {
			n := g.Nodes[id]
			for _, name := range slices.Sorted(maps.Keys(n.Inputs)) {
				in := c.classes[n.ClassType].inputs[name]
				for what, value := range mutations(in) {
					if key := n.ClassType + " " + name + " " + what; seen[key] {
						continue
					} else {
						seen[key] = true
					}
					mutant := mutate(g, id, name, value)
					_, err := comfy.ParseGraph(mutant)
					require.NoError(t, err)
					ours := verdict(c, mutant, nil)
					refused, answer := r.refuses(mutant)
					tried++
					if ours != "" {
						require.True(t, refused, "%s: %s %s of %s: we say %q, ComfyUI %s\n%s", e.Name, what, name, n.ClassType, ours, answer, mutant)
					}
					if refused {
						theirs++
						if ours != "" {
							caught++
						} else {
							missed[fmt.Sprintf("%s.%s %s", n.ClassType, name, what)]++
						}
					}
				}
			}
		}
	}
	t.Logf("%d mutants: ComfyUI refuses %d, we caught %d of them, and refused nothing that it takes; missed: %v", tried, theirs, caught, missed)
	require.GreaterOrEqual(t, tried, 60)
	require.GreaterOrEqual(t, caught*10, theirs*9)
}

// mutations are values that an input is unlikely to take; "" takes the input away.
func mutations(in *input) map[string]string {
	m := map[string]string{
		"dropped": "", "null": "null", "word": `"zzz no such thing"`, "number as text": `" 7 "`, "fraction": "1.5", "true": "true",
		"object": `{"a":1}`, "wrapped": `{"__value__":3}`, "wrapped list": `{"__value__":["a","b"]}`, "empty list": "[]", "list of one": `["1"]`,
		"list of three": `["1",0,0]`, "ID as number": `[1,0]`, "link to nowhere": `["no such node",0]`, "link of texts": `["no such node","0"]`,
		"output 99": `["1",99]`, "output -99": `["1",-99]`, "output 0.0": `["1",0.0]`, "output as text": `["1","0"]`, "link": `["1",0]`,
		"link to the first output's number as true": `["1",true]`, "nan": `"nan"`, "infinite": `"-inf"`,
	}
	if in.max != "" {
		m["above"] = string(in.max) + "1"
	}
	if in.min != "" {
		m["below"] = "-" + "1000000000"
	}
	return m
}

func mutate(g *comfy.Graph, id, name, value string) []byte {
	var nodes map[string]map[string]any
	d := json.NewDecoder(bytes.NewReader(g.JSON()))
	d.UseNumber()
	if d.Decode(&nodes) != nil {
		panic("a graph is JSON")
	}
	inputs := nodes[id]["inputs"].(map[string]any)
	if value == "" {
		delete(inputs, name)
	} else {
		inputs[name] = json.RawMessage(value)
	}
	out, _ := json.Marshal(nodes)
	return out
}
