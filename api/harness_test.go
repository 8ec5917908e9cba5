package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/outbound"
	"github.com/comfyd/comfyd/internal/webhook"
)

// harness is a server on a real port, on doubles.
type harness struct {
	t        *testing.T
	server   *Server
	temporal *fakeTemporal
	store    *fakeStore
	catalogs *fakeCatalogs
	log      *lockedBuffer
	addr     string
	client   *http.Client
	clock    atomic.Pointer[time.Time] // the server's time; nil: the real one
}

const (
	keyA = "secret-of-a"
	keyB = "secret-of-b"
)

func newHarness(t *testing.T, change ...func(*Options)) *harness {
	return newTunedHarness(t, func(*Server) {}, change...)
}

// newTunedHarness changes the server before it serves.
func newTunedHarness(t *testing.T, tune func(*Server), change ...func(*Options)) *harness {
	h := &harness{
		t: t, temporal: &fakeTemporal{runs: map[string]*fakeRun{}},
		store:    &fakeStore{objects: map[string][]byte{}, sizes: map[string]int64{}, times: map[string]time.Time{}},
		catalogs: &fakeCatalogs{}, log: &lockedBuffer{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 2 * time.Minute},
	}
	log := logrus.New()
	log.SetOutput(h.log)
	log.SetLevel(logrus.DebugLevel)
	o := Options{
		Temporal: h.temporal, Store: h.store, Catalogs: h.catalogs, Log: log, Version: "test",
		Keys:       []Key{{Tenant: "a", Secret: keyA}, {Tenant: "b", Secret: keyB}},
		SigningKey: []byte("0123456789abcdef0123456789abcdef"),
	}
	o.Webhooks = webhook.New(webhook.Options{
		Caller: outbound.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}), Fallback: o.SigningKey, Log: log,
	})
	t.Cleanup(o.Webhooks.Close)
	for _, c := range change {
		c(&o)
	}
	server, err := New(o)
	require.NoError(t, err)
	h.server = server
	server.now = func() time.Time {
		if at := h.clock.Load(); at != nil {
			return *at
		}
		return time.Now()
	}
	server.patience = patience{read: time.Minute, query: time.Minute, own: time.Minute, note: time.Minute, poll: time.Minute}
	tune(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		h.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, server.Shutdown(ctx))
		require.NoError(t, <-served)
	})
	return h
}

// setClock stops the server's time.
func (h *harness) setClock(at time.Time) { h.clock.Store(&at) }

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

func (h *harness) do(method, path, body string, headers ...string) answer {
	h.t.Helper()
	target := path
	if !strings.HasPrefix(path, "http") {
		target = "http://" + h.addr + path
	}
	req, err := http.NewRequest(method, target, strings.NewReader(body))
	require.NoError(h.t, err)
	req.Header.Set("Authorization", "Bearer "+keyA)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := h.client.Do(req)
	require.NoError(h.t, err)
	a := h.read(resp)
	description().check(h.t, req, body, a)
	return a
}

func (h *harness) read(resp *http.Response) answer {
	h.t.Helper()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(h.t, err)
	require.NoError(h.t, resp.Body.Close())
	a := answer{status: resp.StatusCode, header: resp.Header, raw: raw}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") && len(raw) > 0 {
		require.NoError(h.t, json.Unmarshal(raw, &a.body), "%s", raw)
	}
	return a
}

const graphJSON = `{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":9007199254740993}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"x"}}}`

func (h *harness) submit(body string, headers ...string) answer {
	h.t.Helper()
	return h.do("POST", "/submit_workflow", body, headers...)
}

// submitted starts a job and returns it with its ID.
func (h *harness) submitted() (string, *fakeRun) {
	h.t.Helper()
	a := h.submit(`{"workflow":` + graphJSON + `}`)
	require.Equal(h.t, 202, a.status, "%s", a.raw)
	id := a.body["id"].(string)
	run, err := h.temporal.get(id)
	require.NoError(h.t, err)
	return id, run
}

// complete ends a job with these files, stored as its images.
func (h *harness) complete(run *fakeRun, images ...[]byte) {
	h.t.Helper()
	run.result = comfy.Result{Attempts: 1, Backend: "url", Metrics: comfy.Metrics{TotalMS: 12}}
	for i, raw := range images {
		blob := h.store.put("outputs/"+run.info.Execution.WorkflowId+"/", raw)
		run.result.Images = append(run.result.Images, comfy.Output{
			Filename: fmt.Sprintf("x_%05d_.png", i+1), Ref: blob.Key, NodeID: "2", ContentType: "image/png",
			SizeBytes: blob.Size, SHA256: blob.SHA256, Width: 64, Height: 64,
		})
	}
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
}

func (h *harness) finish(run *fakeRun, status enums.WorkflowExecutionStatus) {
	h.temporal.mu.Lock()
	defer h.temporal.mu.Unlock()
	run.end(status)
	h.server.open.void(run.info.Execution.WorkflowId, h.server.now())
}

// change changes a run while the server may read it. What changes a workflow's own word is an event in its history.
func (h *harness) change(run *fakeRun, f func()) {
	h.temporal.mu.Lock()
	defer h.temporal.mu.Unlock()
	f()
	run.info.HistoryLength++
	h.server.open.void(run.info.Execution.WorkflowId, h.server.now())
}

func (h *harness) requireError(a answer, status int, code Code) {
	h.t.Helper()
	require.Equal(h.t, status, a.status, "%s", a.raw)
	require.Equal(h.t, string(code), a.body["code"], "%s", a.raw)
	require.NotEmpty(h.t, a.body["error"])
	require.Equal(h.t, "nosniff", a.header.Get("X-Content-Type-Options"))
	require.Equal(h.t, "no-store", a.header.Get("Cache-Control"))
}
