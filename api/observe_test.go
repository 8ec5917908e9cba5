package api

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// TestRequestsAreNamedByTheirRoute: whatever clients ask for, there are only so many names.
func TestRequestsAreNamedByTheirRoute(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	h := newHarness(t, func(o *Options) {
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "metrics") })
		o.Observed = func(route, method string, status int, took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, fmt.Sprint(method, " ", route, " ", status))
		}
	})
	id, _ := h.submitted()
	h.do("GET", "/status/"+id, "")
	h.do("GET", "/status/"+id+"?wait=1", "")
	h.do("GET", "/status/nobody", "")
	h.do("HEAD", "/healthz", "")
	h.do("GET", "/", "")
	h.do("GET", "/any/thing", "")
	h.do("GET", "/status/", "")
	h.do("BREW", "/status/x", "")
	h.do("DELETE", "/submit_workflow", "")
	h.do("POST", "/submit_workflow", "{}", "Authorization", "")
	require.Equal(t, "metrics", string(h.do("GET", "/metrics", "").raw))
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []string{
		"POST /submit_workflow 202", "GET /status/:id 202", "GET /status/:id?wait 202", "GET /status/:id 404", "HEAD /healthz 200",
		"GET / 200", "GET other 404", "GET other 404", "TRACE other 405", "DELETE other 405", "POST /submit_workflow 401", "GET /metrics 200",
	}, seen)
}

// TestWhatIsTraced: what changes something, and what is part of the client's own trace.
func TestWhatIsTraced(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	h := newHarness(t, func(o *Options) { o.Tracer = trace.NewTracerProvider(trace.WithSyncer(spans)).Tracer("test") })
	h.submit(`{"workflow":`+graphJSON+`}`, "X-Request-Id", "mine")
	h.do("GET", "/jobs", "")
	h.do("GET", "/status/x", "", "Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
	h.do("GET", "/status/x", "", "Traceparent", "nonsense")
	h.do("GET", "/status/x", "", "Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	h.do("POST", "/cancel/x", "", "Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
	got := spans.GetSpans()
	require.Len(t, got, 2, "and not what the client does not sample")
	require.Equal(t, "POST /submit_workflow", got[0].Name)
	require.True(t, slices.ContainsFunc(got[0].Attributes, func(a attribute.KeyValue) bool { return a.Key == "request_id" && a.Value.AsString() == "mine" }))
	require.Equal(t, "GET /status/:id", got[1].Name)
	require.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", got[1].SpanContext.TraceID().String())
	require.Equal(t, "00f067aa0ba902b7", got[1].Parent.SpanID().String())
}
