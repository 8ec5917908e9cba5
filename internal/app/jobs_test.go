package app_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestJobs(t *testing.T) {
	a := start(t, map[string]string{"COMFYUI_URLS": comfyURL(t)})
	a.ready()
	all := jobs()
	all["no such backend"] = noSuchBackend
	a.each(t, all)
}

// jobs is what holds for jobs on any backend.
func jobs() map[string]func(*api) {
	return map[string]func(*api){
		"the PRD's answers":                 theContract,
		"another tenant sees nothing":       tenants,
		"one key is one job":                idempotency,
		"the same workflow again is cached": cachedRerun,
		"two jobs with one file name":       inputIsolation,
		"files of others cannot be read":    pathPolicy,
		"seeds keep their digits":           digits,
		"a large workflow":                  largeWorkflow,
		"a hundred images":                  hundredImages,
		"no graph inside the file":          stripped,
		"signed links":                      links,
		"cancel":                            cancel,
		"the run limit":                     runLimit,
	}
}

func (a *api) each(t *testing.T, all map[string]func(*api)) {
	for name, f := range all {
		t.Run(name, func(t *testing.T) {
			a := *a
			a.t = t
			f(&a)
		})
	}
}

func theContract(a *api) {
	r := a.do("POST", "/submit_workflow", map[string]any{"workflow": slow(a.t), "metadata": map[string]string{"shot": "12"}})
	require.Equal(a.t, 202, r.code)
	id := r.body["id"].(string)
	r = a.do("GET", "/status/"+id, nil)
	require.Equal(a.t, 202, r.code)
	require.Equal(a.t, id, r.body["id"])
	require.Equal(a.t, "RUNNING", r.body["status"])

	var phases []any
	require.Eventually(a.t, func() bool {
		r := a.do("GET", "/status/"+id, nil)
		if !slices.Contains(phases, r.body["phase"]) {
			phases = append(phases, r.body["phase"])
		}
		p, _ := r.body["progress"].(map[string]any)
		return r.body["phase"] == "running" && p["value"].(float64) > 0 && p["nodes_total"].(float64) > 0
	}, 2*time.Minute, 50*time.Millisecond, "progress of a running job; phases seen: %v", &phases)
	status := a.finish(id)
	require.Equal(a.t, "COMPLETED", status["status"])
	require.EqualValues(a.t, 1, status["attempts"])
	m := status["metrics"].(map[string]any)
	require.Greater(a.t, m["execution_ms"], 100.0)
	require.NotEmpty(a.t, status["expires_at"])
	require.Equal(a.t, status, a.finish(id), "an end never changes")

	for _, unknown := range []string{"nope", "00000000-0000-4000-8000-000000000000", "temporal-sys-history-scanner"} {
		r := a.do("GET", "/status/"+unknown, nil)
		require.Equal(a.t, 404, r.code)
		require.Equal(a.t, "Call ID not found or invalid.", r.body["error"])
	}
}

func tenants(a *api) {
	id := a.submit(map[string]any{"workflow": graph(3, "tenant")})
	bob := *a
	bob.key = other
	require.Equal(a.t, 404, bob.do("GET", "/status/"+id, nil).code)
	require.Equal(a.t, 404, bob.do("POST", "/cancel/"+id, nil).code)
	require.Equal(a.t, "COMPLETED", a.finish(id)["status"])
	require.Equal(a.t, 404, bob.do("GET", "/status/"+id, nil).code, "also from a cache")
	bob.key = "not a key at all"
	require.Equal(a.t, 401, bob.do("GET", "/status/"+id, nil).code)
}

func idempotency(a *api) {
	const n = 20
	body := map[string]any{"workflow": graph(4, "once")}
	ids := make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { ids[i] = a.submit(body, "Idempotency-Key", "order 66") })
	}
	wg.Wait()
	require.Len(a.t, slices.Compact(slices.Sorted(slices.Values(ids))), 1)
	a.finish(ids[0])
	r := a.do("POST", "/submit_workflow", body, "Idempotency-Key", "order 66")
	require.Equal(a.t, 202, r.code)
	require.Equal(a.t, ids[0], r.body["id"])
	require.Equal(a.t, "true", r.header.Get("Idempotent-Replayed"))
	r = a.do("POST", "/submit_workflow", map[string]any{"workflow": graph(5, "once")}, "Idempotency-Key", "order 66")
	require.Equal(a.t, 422, r.code)
	bob := *a
	bob.key = other
	require.NotEqual(a.t, ids[0], bob.submit(body, "Idempotency-Key", "order 66"), "a key is its tenant's")
}

func cachedRerun(a *api) {
	first := a.finish(a.submit(map[string]any{"workflow": graph(6, "cached")}))
	want := bytesOf(a.t, outputs(a.t, first)[0])
	again := a.finish(a.submit(map[string]any{"workflow": graph(6, "cached")}))
	got := outputs(a.t, again)
	require.Len(a.t, got, 1)
	require.NotEmpty(a.t, bytesOf(a.t, got[0]))
	require.Equal(a.t, got[0]["width"], 64.0)
	require.Equal(a.t, true, again["cached"], "%v", again)
	require.NotEmpty(a.t, want)
}

func inputIsolation(a *api) {
	g := json.RawMessage(`{"1":{"class_type":"LoadImage","inputs":{"image":"same.png"}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"iso"}}}`)
	var wg sync.WaitGroup
	for i := range 4 {
		file, size := "inputs/gradient.png", 96.0
		if i%2 == 1 {
			file = ""
		}
		wg.Go(func() {
			raw := onePixel(a.t)
			if file != "" {
				raw = testdata(a.t, file)
			} else {
				size = 1
			}
			id := a.submit(map[string]any{"workflow": g, "images": []any{map[string]any{"name": "same.png", "image": "data:image/png;base64," + base64.StdEncoding.EncodeToString(raw)}}})
			require.Equal(a.t, size, outputs(a.t, a.finish(id))[0]["width"])
		})
	}
	wg.Wait()
	r := a.do("POST", "/submit_workflow", map[string]any{"workflow": g})
	require.Equal(a.t, 400, r.code, "without the file: %v", r.body)
}

func onePixel(t *testing.T) []byte {
	raw, err := base64.StdEncoding.DecodeString("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
	require.NoError(t, err)
	return raw
}

func pathPolicy(a *api) {
	for _, name := range []string{"../output/x.png", "/etc/passwd", "x.png [output]", "x.png [temp]", `..\\output\\x.png`, "comfyd/another-job/secret.png", "a/../../x.png"} {
		g := fmt.Sprintf(`{"1":{"class_type":"LoadImage","inputs":{"image":"%s"}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"x"}}}`, name)
		r := a.do("POST", "/submit_workflow", map[string]any{"workflow": json.RawMessage(g)})
		require.Equal(a.t, 400, r.code, "%s: %v", name, r.body)
		require.Contains(a.t, r.body["node_errors"], "1", name)
	}
	g := json.RawMessage(`{"1":{"class_type":"LoadImage","inputs":{"image":"mine.png [input]"}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"x"}}}`)
	id := a.submit(map[string]any{"workflow": g, "images": []any{map[string]any{"name": "mine.png", "image": base64.StdEncoding.EncodeToString(onePixel(a.t))}}})
	require.Equal(a.t, "COMPLETED", a.finish(id)["status"])
}

func digits(a *api) {
	g := json.RawMessage(`{"1":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":1,"color":0}},
		"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":18446744073709551615,"strength":0.5}},
		"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"digits"}}}`)
	raw := bytesOf(a.t, outputs(a.t, a.finish(a.submit(map[string]any{"workflow": g})))[0])
	require.Contains(a.t, string(raw), "18446744073709551615", "ComfyUI embeds the graph as it came")
}

func largeWorkflow(a *api) {
	long := strings.Repeat("a long prompt, ", 350_000)
	g := fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":1,"color":0},"_meta":{"title":%q}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"large"}}}`, long)
	require.Greater(a.t, len(g), 5_000_000)
	status := a.finish(a.submit(map[string]any{"workflow": json.RawMessage(g)}))
	require.Greater(a.t, outputs(a.t, status)[0]["size_bytes"], 5_000_000.0, "the graph is in the PNG")
}

func hundredImages(a *api) {
	g := json.RawMessage(`{"1":{"class_type":"EmptyImage","inputs":{"width":32,"height":32,"batch_size":100,"color":9}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"hundred"}}}`)
	all := outputs(a.t, a.finish(a.submit(map[string]any{"workflow": g})))
	require.Len(a.t, all, 100)
	names := map[any]bool{}
	for _, o := range all {
		names[o["filename"]] = true
		sum := sha256.Sum256(bytesOf(a.t, o))
		require.Equal(a.t, hex.EncodeToString(sum[:]), o["sha256"])
	}
	require.Len(a.t, names, 100)
}

func stripped(a *api) {
	info := map[string]any{"workflow": map[string]any{"note": "the-editors-own-graph"}}
	g := graph(11, "a-telling-prefix")
	raw := bytesOf(a.t, outputs(a.t, a.finish(a.submit(map[string]any{"workflow": g, "extra_pnginfo": info})))[0])
	require.Contains(a.t, string(raw), "a-telling-prefix")
	require.Contains(a.t, string(raw), "the-editors-own-graph")
	raw = bytesOf(a.t, outputs(a.t, a.finish(a.submit(map[string]any{"workflow": g, "extra_pnginfo": info, "strip_metadata": true})))[0])
	require.NotContains(a.t, string(raw), "a-telling-prefix")
	require.NotContains(a.t, string(raw), "the-editors-own-graph")
}

func links(a *api) {
	id := a.submit(map[string]any{"workflow": graph(12, "link")})
	a.finish(id)
	r := a.do("GET", "/status/"+id+"?output=url", nil)
	o := outputs(a.t, r.body)[0]
	require.Equal(a.t, "url", o["type"])
	require.NotContains(a.t, o, "data")
	res, err := http.Get(o["url"].(string))
	require.NoError(a.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(a.t, err)
	require.Equal(a.t, 200, res.StatusCode)
	sum := sha256.Sum256(raw)
	require.Equal(a.t, o["sha256"], hex.EncodeToString(sum[:]))
	res, err = http.Get(o["url"].(string) + "0")
	require.NoError(a.t, err)
	res.Body.Close()
	require.Contains(a.t, []int{403, 404}, res.StatusCode, "a forged link")
}

func cancel(a *api) {
	running := a.submit(map[string]any{"workflow": slow(a.t)})
	require.Eventually(a.t, func() bool { return a.do("GET", "/status/"+running, nil).body["phase"] == "running" }, 2*time.Minute, 50*time.Millisecond)
	waiting := a.submit(map[string]any{"workflow": graph(13, "waiting")})
	r := a.do("POST", "/cancel/"+running, nil)
	require.Equal(a.t, 202, r.code, "%v", r.body)
	status := a.finish(running)
	require.Equal(a.t, "FAILED", status["status"])
	require.Equal(a.t, "canceled", status["code"])
	require.Positive(a.t, status["metrics"].(map[string]any)["execution_ms"], "it has cost GPU time")
	require.Equal(a.t, 200, a.do("POST", "/cancel/"+running, nil).code, "again, it is no error")
	require.Equal(a.t, "COMPLETED", a.finish(waiting)["status"], "a cancel hits its own job alone")
}

func runLimit(a *api) {
	status := a.finish(a.submit(map[string]any{"workflow": slow(a.t), "timeout_seconds": 1}))
	require.Equal(a.t, "FAILED", status["status"])
	require.Equal(a.t, "timeout", status["code"])
	require.Equal(a.t, "COMPLETED", a.finish(a.submit(map[string]any{"workflow": graph(14, "next")}))["status"])
}

func noSuchBackend(a *api) {
	r := a.do("POST", "/submit_workflow", map[string]any{"workflow": graph(15, "x"), "backend": "mars"})
	require.Equal(a.t, 400, r.code, "%v", r.body)
	require.Equal(a.t, "COMPLETED", a.finish(a.submit(map[string]any{"workflow": graph(15, "x"), "backend": "url"}))["status"])
}

// TestEveryBackendOff: a job is taken, waits, and fails when its time to start is over.
func TestEveryBackendOff(t *testing.T) {
	a := start(t, map[string]string{"COMFYUI_URLS": "http://127.0.0.1:1", "COMFYD_START_TIMEOUT": "8s"})
	require.Equal(t, 503, a.do("GET", "/readyz", nil).code)
	require.Equal(t, 200, a.do("GET", "/healthz", nil).code)
	var took []time.Duration
	var last string
	for i := range 200 {
		began := time.Now()
		last = a.submit(map[string]any{"workflow": graph(i, "off")})
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("submission with every backend off: p50 %s, p99 %s", took[100], took[197])
	status := a.finish(last)
	require.Equal(t, "FAILED", status["status"])
	require.Equal(t, "backend_unavailable", status["code"])
	require.Contains(t, status["error"], "127.0.0.1:1", "it says what is wrong with which server")
}
