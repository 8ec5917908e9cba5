package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"

	"github.com/comfyd/comfyd/comfy"
)

func randomBytes(t *testing.T, n int) []byte {
	raw := make([]byte, n)
	_, err := rand.Read(raw)
	require.NoError(t, err)
	return raw
}

func TestResultSaysWhatThePRDSays(t *testing.T) {
	for _, sizes := range [][]int{{}, {0}, {1, 2, 3}, {chunk - 1, chunk, chunk + 1}, {100_000, 300_001}} {
		t.Run(fmt.Sprint(sizes), func(t *testing.T) {
			h := newHarness(t)
			id, run := h.submitted()
			var images [][]byte
			for _, n := range sizes {
				images = append(images, randomBytes(t, n))
			}
			h.complete(run, images...)
			for range 2 {
				a := h.do("GET", "/status/"+id, "")
				require.Equal(t, 200, a.status, "%s", a.raw)
				require.Equal(t, fmt.Sprint(len(a.raw)), a.header.Get("Content-Length"))
				require.Equal(t, id, a.body["id"])
				require.Equal(t, "COMPLETED", a.body["status"])
				require.Equal(t, false, a.body["cached"])
				require.NotEmpty(t, a.body["expires_at"])
				require.NotNil(t, a.body["metrics"])
				list := a.body["output"].(map[string]any)["images"].([]any)
				require.Len(t, list, len(sizes))
				for i, item := range list {
					img := item.(map[string]any)
					require.Equal(t, run.result.Images[i].Filename, img["filename"])
					require.Equal(t, "base64", img["type"])
					raw, err := base64.StdEncoding.DecodeString(img["data"].(string))
					require.NoError(t, err)
					require.True(t, bytes.Equal(images[i], raw))
					require.Equal(t, "2", img["node_id"])
					require.Equal(t, "image/png", img["content_type"])
					require.EqualValues(t, sizes[i], img["size_bytes"])
					require.Len(t, img["sha256"], 64)
					require.EqualValues(t, 64, img["width"])
				}
			}
			require.Zero(t, h.store.opened.Load(), "every object is closed")
		})
	}
}

func TestResultFilesAndTexts(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	video, long := []byte("video"), strings.Repeat("é\"\n", 100)
	blob, text := h.store.put("outputs/x/", video), h.store.put("outputs/x/", []byte(long))
	run.result = comfy.Result{
		Cached: true,
		Files:  []comfy.Output{{Filename: "v.mp4", Subfolder: "deep", Ref: blob.Key, NodeID: "3", ContentType: "video/mp4", SizeBytes: blob.Size, SHA256: blob.SHA256}},
		Texts:  []comfy.Text{{NodeID: "4", Text: "a-b"}, {NodeID: "5", Text: ""}, {NodeID: "6", Ref: text.Key, Size: text.Size}},
	}
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	a := h.do("GET", "/status/"+id, "")
	require.Equal(t, 200, a.status, "%s", a.raw)
	require.Equal(t, true, a.body["cached"])
	output := a.body["output"].(map[string]any)
	require.Empty(t, output["images"])
	require.NotNil(t, output["images"], "a list, even where it is empty")
	file := output["files"].([]any)[0].(map[string]any)
	require.Equal(t, base64.StdEncoding.EncodeToString(video), file["data"])
	require.Equal(t, "deep", file["subfolder"])
	texts := output["texts"].([]any)
	require.Equal(t, map[string]any{"node_id": "4", "text": "a-b"}, texts[0])
	require.Equal(t, map[string]any{"node_id": "5", "text": ""}, texts[1])
	require.Equal(t, map[string]any{"node_id": "6", "text": long, "size_bytes": float64(len(long))}, texts[2])

	a = h.do("GET", "/status/"+id+"?output=url", "")
	link := a.body["output"].(map[string]any)["texts"].([]any)[2].(map[string]any)["url"].(string)
	got := h.do("GET", link, "", "Authorization", "")
	require.Equal(t, 200, got.status)
	require.Equal(t, long, string(got.raw))
	require.Equal(t, "text/plain; charset=utf-8", got.header.Get("Content-Type"))
}

func TestResultLost(t *testing.T) {
	for name, lose := range map[string]func(h *harness, key string){
		"gone":    func(h *harness, key string) { delete(h.store.objects, key) },
		"shorter": func(h *harness, key string) { h.store.objects[key] = []byte("x") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			id, run := h.submitted()
			h.complete(run, []byte("one"), randomBytes(t, 1<<20))
			lose(h, run.result.Images[1].Ref)
			h.requireError(h.do("GET", "/status/"+id, ""), 500, CodeOutputLost)
		})
	}
	h := newHarness(t)
	id, run := h.submitted()
	h.complete(run, []byte("one"))
	h.store.err = io.ErrClosedPipe
	h.requireError(h.do("GET", "/status/"+id, ""), 503, CodeStorage)
}

func TestResultHead(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.complete(run, randomBytes(t, 1<<20))
	a := h.do("HEAD", "/status/"+id, "")
	require.Equal(t, 200, a.status)
	require.Greater(t, len(a.header.Get("Content-Length")), 6)
	require.Zero(t, h.store.opened.Load())
	require.Equal(t, 200, h.do("GET", "/healthz", "").status)
}

// large makes a completed job with one output of this size that exists nowhere.
func (h *harness) large(size int64) string {
	id, run := h.submitted()
	key := "outputs/" + id + "/" + strings.Repeat("0", 64)
	h.store.sizes[key] = size
	run.result = comfy.Result{Images: []comfy.Output{{Filename: "large.png", Ref: key, SHA256: strings.Repeat("0", 64), SizeBytes: size, ContentType: "image/png"}}}
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	return id
}

// fetch reads a status without keeping it and returns its size and the largest heap on the way.
func fetch(t *testing.T, h *harness, id string) (size int64, peak uint64) {
	req, err := http.NewRequest("GET", "http://"+h.addr+"/status/"+id, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+keyA)
	resp, err := h.client.Do(req)
	require.NoError(t, err)
	buf := make([]byte, 256<<10)
	for i := 0; ; i++ {
		n, err := resp.Body.Read(buf)
		size += int64(n)
		if i%50 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		}
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
	}
	require.NoError(t, resp.Body.Close())
	require.Equal(t, resp.ContentLength, size)
	return size, peak
}

func TestResultLargeTakesLittleMemory(t *testing.T) {
	h := newHarness(t)
	id := h.large(50 << 20)
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	size, peak := fetch(t, h, id)
	took := time.Since(start)
	require.Greater(t, size, int64(66<<20))
	grown := int64(peak) - int64(before.HeapInuse)
	t.Logf("50 MB as %d MB of base64 in %v; the heap grew by %.1f MiB", size>>20, took.Round(time.Millisecond), float64(grown)/(1<<20))
	require.Less(t, grown, int64(16<<20))
	require.Zero(t, h.store.opened.Load())
}

func TestResultClientLeaves(t *testing.T) {
	h := newHarness(t)
	id := h.large(200 << 20)
	conn, err := net.Dial("tcp", h.addr)
	require.NoError(t, err)
	_, err = fmt.Fprintf(conn, "GET /status/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", id, keyA)
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 1<<20))
	require.NoError(t, err)
	require.EqualValues(t, 1, h.store.opened.Load())
	require.NoError(t, conn.Close())
	require.Eventually(t, func() bool { return h.store.opened.Load() == 0 }, 30*time.Second, time.Millisecond)
}

func TestClosedJobsAreBounded(t *testing.T) {
	c := newClosedJobs()
	expires := time.Now().Add(time.Hour)
	for i := range 1000 {
		j := &job{id: fmt.Sprint(i), status: comfy.Status{ExpiresAt: &expires}}
		c.add(j, time.Now())
		c.addBody(j, make([]byte, maxBody))
	}
	require.LessOrEqual(t, c.size, maxClosedBytes)
	require.Greater(t, c.size, maxClosedBytes/2)
	newest, _ := c.get("999", time.Now())
	require.NotNil(t, newest)
	oldest, _ := c.get("0", time.Now())
	require.Nil(t, oldest)
	total := 0
	for _, j := range c.jobs.Values() {
		total += sizeOf(j.job)
	}
	require.Equal(t, total, c.size)
}

func TestKeepsNoLargeBody(t *testing.T) {
	h := newHarness(t)
	id := h.large(maxBody)
	fetch(t, h, id)
	remembered, _ := h.server.closed.get(id, time.Now())
	require.Nil(t, remembered.body)
}

// brokenStore fails after the first hundred kilobytes of an object.
type brokenStore struct {
	*fakeStore
	panics bool
}

func (b *brokenStore) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	object, err := b.fakeStore.Open(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(object, 100_000), failing{panics: b.panics}), object}, nil
}

type failing struct{ panics bool }

func (f failing) Read([]byte) (int, error) {
	if f.panics {
		panic("disk on fire")
	}
	return 0, io.ErrClosedPipe
}
