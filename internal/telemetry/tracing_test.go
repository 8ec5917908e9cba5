package telemetry

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
)

// TestAWorkflowKeepsItsSpan: whichever worker takes it up.
func TestAWorkflowKeepsItsSpan(t *testing.T) {
	tracer := func() api.Tracer { return trace.NewTracerProvider(trace.WithIDGenerator(steadyIDs{})).Tracer("test") }
	id, span := steadyIDs{}.NewIDs(t.Context())
	_, span2 := steadyIDs{}.NewIDs(t.Context())
	below := func(span api.SpanID, name string, at time.Time) api.SpanContext {
		ctx := api.ContextWithSpanContext(t.Context(), api.NewSpanContext(api.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: api.FlagsSampled}))
		return startSpan(ctx, tracer(), name, api.WithTimestamp(at)).SpanContext()
	}
	began := time.Now()
	first := below(span, "RunWorkflow:ComfyUIWorkflow", began)
	require.Equal(t, id, first.TraceID())
	require.Equal(t, first, below(span, "RunWorkflow:ComfyUIWorkflow", began))
	require.NotEqual(t, first.SpanID(), below(span2, "RunWorkflow:ComfyUIWorkflow", began).SpanID(), "another start")
	require.NotEqual(t, first.SpanID(), below(span, "RunWorkflow:ComfyUIWorkflow", began.Add(1)).SpanID(), "a reset")
	require.NotEqual(t, below(span, "RunActivity:Prompt", began).SpanID(), below(span, "RunActivity:Prompt", began).SpanID())
}
