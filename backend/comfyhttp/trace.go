package comfyhttp

import (
	"net/http"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traced makes a span of each call that is part of a trace, and tells the server of it in the header traceparent, which
// ComfyUI passes over and a proxy in front of it may know. The span of a WebSocket lasts as long as that. Nothing global is
// asked: the spans are of whoever made the one in the call's context, and without that there is none.
func traced(t http.RoundTripper) http.RoundTripper {
	return otelhttp.NewTransport(t,
		otelhttp.WithFilter(func(r *http.Request) bool {
			return trace.SpanContextFromContext(r.Context()).IsSampled() && !polled(r.URL.Path)
		}),
		otelhttp.WithPropagators(propagation.TraceContext{}), otelhttp.WithMeterProvider(noop.NewMeterProvider()),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + r.URL.Path }),
	)
}

// polled tells the addresses that are asked again and again while a prompt runs, and of which one names the prompt.
func polled(path string) bool {
	return strings.Contains(path, "/history") || strings.HasSuffix(path, "/queue")
}
