package telemetry

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
	"go.temporal.io/sdk/contrib/opentelemetry"
	"go.temporal.io/sdk/interceptor"
)

// flushTimeout is what a stopping process grants the receiver of its last spans.
const flushTimeout = 5 * time.Second

// warnEvery is how often it is said that nobody takes the spans.
const warnEvery = time.Minute

// Tracing sends spans to an OTLP receiver. A process without one has none, and pays nothing.
type Tracing struct {
	provider *trace.TracerProvider
}

// TracingOptions of a [Tracing]. The receiver and all about it stand in OTEL_EXPORTER_OTLP_*, which the exporter reads.
type TracingOptions struct {
	Role, Version string
	GRPC          bool // rather than HTTP
	Log           logrus.FieldLogger
}

// StartTracing makes the exporter. It does not need the receiver to be there.
func StartTracing(ctx context.Context, o TracingOptions) (*Tracing, error) {
	c := otlptracehttp.NewClient()
	if o.GRPC {
		c = otlptracegrpc.NewClient()
	}
	exporter, err := otlptrace.New(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_*: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "comfyd"), attribute.String("service.version", o.Version), attribute.String("comfyd.role", o.Role),
	), resource.WithHost(), resource.WithFromEnv()) // OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES go before ours
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return &Tracing{provider: trace.NewTracerProvider(
		trace.WithBatcher(&quietExporter{SpanExporter: exporter, log: o.Log}), trace.WithResource(about), trace.WithIDGenerator(steadyIDs{}),
	)}, nil
}

// Tracer makes spans of a part of comfyd.
func (t *Tracing) Tracer(part string) api.Tracer {
	return t.provider.Tracer("github.com/comfyd/comfyd/" + part)
}

// Stop sends the last spans.
func (t *Tracing) Stop(ctx context.Context) error {
	ctx, done := context.WithTimeout(ctx, flushTimeout)
	defer done()
	return t.provider.Shutdown(ctx)
}

func (t *Tracing) interceptor() (interceptor.Interceptor, error) {
	return opentelemetry.NewTracingInterceptor(opentelemetry.TracerOptions{
		Tracer: t.Tracer("temporal"), TextMapPropagator: propagation.TraceContext{}, DisableBaggage: true, AllowInvalidParentSpans: true,
		DisableQueryTracing: true, // each poll of an open job is one
		SpanStarter:         startSpan,
	})
}

type spanKey struct{}

// startSpan gives the span of a workflow the same ID whenever the workflow is taken up again, by whichever worker, so that
// the spans below it keep their parent.
func startSpan(ctx context.Context, t api.Tracer, name string, opts ...api.SpanStartOption) api.Span {
	if parent := api.SpanContextFromContext(ctx); parent.IsValid() && strings.HasPrefix(name, "RunWorkflow:") {
		c := api.NewSpanStartConfig(opts...)
		sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%s/%d", parent.TraceID(), parent.SpanID(), name, c.Timestamp().UnixNano()))
		ctx = context.WithValue(ctx, spanKey{}, api.SpanID(sum[:8]))
	}
	_, span := t.Start(ctx, name, opts...)
	return span
}

// steadyIDs are random, but for spans that bring their own.
type steadyIDs struct{}

// NewIDs implements [trace.IDGenerator].
func (g steadyIDs) NewIDs(ctx context.Context) (id api.TraceID, span api.SpanID) {
	for !id.IsValid() {
		for i := range id {
			id[i] = byte(rand.Uint32())
		}
	}
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements [trace.IDGenerator].
func (steadyIDs) NewSpanID(ctx context.Context, _ api.TraceID) (id api.SpanID) {
	if own, ok := ctx.Value(spanKey{}).(api.SpanID); ok {
		return own
	}
	for !id.IsValid() {
		for i := range id {
			id[i] = byte(rand.Uint32())
		}
	}
	return id
}

// quietExporter says in our log, now and then, that spans are lost; the library would say so on standard error, each time.
type quietExporter struct {
	trace.SpanExporter
	log logrus.FieldLogger

	mu   sync.Mutex
	said time.Time
}

// ExportSpans implements [trace.SpanExporter].
func (e *quietExporter) ExportSpans(ctx context.Context, spans []trace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil && time.Since(e.said) > warnEvery {
		e.said = time.Now()
		e.log.WithError(err).WithField("spans", len(spans)).Warn("the receiver of traces does not take them; these are lost, jobs are not concerned")
	}
	return nil
}
