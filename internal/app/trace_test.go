package app_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/comfyd/comfyd/internal/app"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// receiver takes spans as an OpenTelemetry collector does.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		raw, err := io.ReadAll(req.Body)
		var in collector.ExportTraceServiceRequest
		if err != nil || req.URL.Path != "/v1/traces" || proto.Unmarshal(raw, &in) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range in.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				r.spans = append(r.spans, ss.GetSpans()...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	return r
}

// tree writes the spans of a trace below the span with an ID, one a line, by time. A span that came twice counts once.
func (r *receiver) tree(trace, below string, depth int) (text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]*tracepb.Span{}
	for _, s := range r.spans {
		if hex.EncodeToString(s.GetTraceId()) == trace {
			all[hex.EncodeToString(s.GetSpanId())] = s
		}
	}
	var write func(below string, depth int)
	write = func(below string, depth int) {
		for _, s := range slices.SortedFunc(maps.Values(all), func(a, b *tracepb.Span) int {
			return int(int64(a.GetStartTimeUnixNano()) - int64(b.GetStartTimeUnixNano()))
		}) {
			if hex.EncodeToString(s.GetParentSpanId()) == below {
				text += fmt.Sprintf("%s%s %.1f ms\n", strings.Repeat("  ", depth), s.GetName(), float64(s.GetEndTimeUnixNano()-s.GetStartTimeUnixNano())/1e6)
				write(hex.EncodeToString(s.GetSpanId()), depth+1)
			}
		}
	}
	write(below, depth)
	return text
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) lines(t *testing.T) (all []map[string]any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.b.String()) {
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &m))
		all = append(all, m)
	}
	return all
}

// TestTrace follows one job, which is lost once, through its trace and through the log.
func TestTrace(t *testing.T) {
	const trace, span, requestID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "what-the-client-calls-it"
	r, comfy := newReceiver(t), fakecomfy.New(t)
	to, err := url.Parse(comfy.URL)
	require.NoError(t, err)
	var mu sync.Mutex
	told := map[string]string{} // traceparent by path
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) } // as if the ComfyUI itself were gone
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		told[req.Method+" "+req.URL.Path] = req.Header.Get("Traceparent")
		mu.Unlock()
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(front.Close)
	front.Config.ErrorLog = nil
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL)
	log, written := logrus.New(), &buffer{}
	log.SetOutput(written)
	log.SetLevel(logrus.DebugLevel)
	log.SetFormatter(&logrus.JSONFormatter{})
	a := startWith(t, app.Serve, map[string]string{"COMFYUI_URLS": front.URL, "OTEL_EXPORTER_OTLP_ENDPOINT": r.URL}, log)
	a.ready()

	gate := comfy.Hold("EmptyImage")
	id := a.submit(map[string]any{"workflow": graph(1, "traced")}, "Traceparent", "00-"+trace+"-"+span+"-01", "X-Request-Id", requestID)
	gate.Reached()
	comfy.Kill()
	gate.Open()
	comfy.Start()
	require.EqualValues(t, 2, a.finish(id)["attempts"])
	a.app.Stop(t.Context()) // sends the last spans

	tree := r.tree(trace, span, 0)
	t.Logf("the trace:\n%s", tree)
	const run = "POST /submit_workflow > StartWorkflow:ComfyUIWorkflow > RunWorkflow:ComfyUIWorkflow"
	require.Equal(t, []string{
		run + " > StartActivity:Look > RunActivity:Look",
		run + " > StartActivity:Prompt > RunActivity:Prompt > GET /view",
		run + " > StartActivity:Prompt > RunActivity:Prompt > GET /ws",
		run + " > StartActivity:Prompt > RunActivity:Prompt > POST /prompt",
		run + " > StartActivity:WarmUp > RunActivity:WarmUp",
	}, slices.DeleteFunc(leaves(tree), func(l string) bool { return strings.Contains(l, "Activity:Collect") })) // where the store is slow
	require.GreaterOrEqual(t, strings.Count(tree, "RunActivity:Prompt"), 2, "it was lost once")
	mu.Lock()
	require.True(t, strings.HasPrefix(told["POST /prompt"], "00-"+trace+"-"), "ComfyUI was told of the trace")
	require.Empty(t, told["GET /system_stats"], "a look at a server is part of no job's trace")
	mu.Unlock()

	seen := map[any]bool{}
	for _, line := range written.lines(t) {
		if line["request_id"] == requestID {
			seen[line["msg"]] = true
			require.Equal(t, "alice", line["tenant"], "%v", line)
			require.Equal(t, id, line["call_id"], "%v", line)
			require.Equal(t, trace, line["trace_id"], "%v", line)
		}
	}
	t.Logf("lines with the request's ID: %v", slices.Collect(maps.Keys(seen)))
	require.True(t, seen["request"], "the API's")
	require.True(t, seen["the submission was lost, the job goes on with another"], "the workflow's")
}

// leaves are the ways through a tree to its ends, each once, without what a warm-up may have to ask a server for.
func leaves(tree string) (all []string) {
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(tree), "\n"), func(l string) bool {
		return strings.Contains(l, "GET /object_info") || strings.Contains(l, "GET /system_stats")
	})
	depth := func(i int) int {
		if i == len(lines) {
			return -1
		}
		return (len(lines[i]) - len(strings.TrimLeft(lines[i], " "))) / 2
	}
	var way []string
	for i, line := range lines {
		name := strings.TrimSuffix(strings.TrimSpace(line), " ms")
		way = append(way[:depth(i)], name[:strings.LastIndex(name, " ")])
		if depth(i+1) <= depth(i) {
			all = append(all, strings.Join(way, " > "))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
