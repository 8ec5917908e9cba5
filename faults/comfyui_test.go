package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// door stands before a real ComfyUI: it counts the prompts that reach it, and can keep requests waiting.
type door struct {
	*httptest.Server
	mu     sync.Mutex
	posted []string
	holds  map[string]*hold
}

// hold keeps the requests of one path waiting.
type hold struct {
	reached, open chan struct{}
	first, once   sync.Once
}

func realComfyUI(t *testing.T) string {
	t.Helper()
	target := os.Getenv("COMFYD_TEST_COMFYUI")
	if target == "" {
		t.Skip("COMFYD_TEST_COMFYUI is not set: make test starts a real ComfyUI and sets it")
	}
	return target
}

// newDoor opens a door to the ComfyUI that the tests share.
func newDoor(t *testing.T) *door {
	t.Helper()
	u, err := url.Parse(realComfyUI(t))
	require.NoError(t, err)
	d := &door{holds: map[string]*hold{}}
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // clients that are killed break off
	d.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/prompt" {
			raw, err := io.ReadAll(r.Body)
			if err != nil {
				return // it never came to ComfyUI
			}
			r.Body = io.NopCloser(bytes.NewReader(raw))
			d.mu.Lock()
			d.posted = append(d.posted, string(raw))
			d.mu.Unlock()
		}
		d.mu.Lock()
		h := d.holds[r.URL.Path]
		d.mu.Unlock()
		if h != nil {
			h.first.Do(func() { close(h.reached) })
			select {
			case <-h.open:
			case <-r.Context().Done():
				return
			}
		}
		r.Host = u.Host
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(func() {
		d.mu.Lock()
		for _, h := range d.holds {
			h.let()
		}
		d.mu.Unlock()
		d.CloseClientConnections()
		d.Close()
	})
	return d
}

// hold keeps requests of a path waiting from now on.
func (d *door) hold(path string) *hold {
	h := &hold{reached: make(chan struct{}), open: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holds[path] = h
	return h
}

func (h *hold) let() { h.once.Do(func() { close(h.open) }) }

// at waits until somebody stands there.
func (h *hold) at(t *testing.T) {
	t.Helper()
	select {
	case <-h.reached:
	case <-time.After(5 * time.Minute):
		t.Fatal("nobody came to the door")
	}
}

func (d *door) runs(mark string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, p := range d.posted {
		if strings.Contains(p, mark) {
			n++
		}
	}
	return n
}

// doubles counts the runs of several doubles.
type doubles []*fakecomfy.Server

func (all doubles) runs(mark string) int {
	n := 0
	for _, s := range all {
		seen := map[string]bool{}
		for _, raw := range s.Posted() {
			var p struct {
				PromptID string `json:"prompt_id"`
			}
			if bytes.Contains(raw, []byte(mark)) && json.Unmarshal(raw, &p) == nil && !seen[p.PromptID] {
				seen[p.PromptID] = true
				n += s.Runs(p.PromptID)
			}
		}
	}
	return n
}

// slow is a workflow that takes ComfyUI many seconds and tells its progress. Each test has another one, because ComfyUI
// caches what it has run.
func slow(t *testing.T) string { return slowOf(t, 2304) }

func slowOf(t *testing.T, size int) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "testdata", "long_progress.json"))
	require.NoError(t, err)
	h := fnv.New32()
	_, _ = fmt.Fprintf(h, "%s %d", t.Name(), time.Now().UnixNano()) // never fails
	// The node ignores this input for images.
	raw = bytes.Replace(raw, []byte(`"temporal_size": 64`), fmt.Appendf(nil, `"temporal_size": %d`, 64+h.Sum32()%4000), 1)
	raw = bytes.Replace(raw, []byte(`"class_type": "PreviewImage",`), []byte(`"class_type": "PreviewImage", "_meta": {"title": "@MARK@"},`), 1)
	return strings.ReplaceAll(string(raw), "1536", fmt.Sprint(size))
}

// noise is a quick workflow that makes one picture of its own.
func noise(seed int) string {
	return fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":0}},
		"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":%d,"strength":0.5}},
		"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"fault"},"_meta":{"title":"@MARK@"}}}`, seed)
}
