package modal

import (
	"context"
	"testing"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestCallsAreTraced: those that are part of a trace, but no polls.
func TestCallsAreTraced(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tracer := trace.NewTracerProvider(trace.WithSyncer(spans)).Tracer("test")
	call := func(ctx context.Context, method string, fails error) {
		err := traced(ctx, method, nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return fails })
		require.Equal(t, fails, err)
	}
	call(t.Context(), pb.ModalClient_FunctionMap_FullMethodName, nil)
	require.Empty(t, spans.GetSpans(), "nobody traces it")

	ctx, job := tracer.Start(t.Context(), "job")
	call(ctx, pb.ModalClient_FunctionMap_FullMethodName, nil)
	call(ctx, pb.ModalClient_FunctionGetOutputs_FullMethodName, nil)
	call(ctx, pb.ModalClient_QueueNextItems_FullMethodName, nil)
	call(ctx, pb.ModalClient_FunctionCallCancel_FullMethodName, status.Error(grpccodes.Unavailable, "a text"))
	got := spans.GetSpans()
	require.Len(t, got, 2)
	require.Equal(t, "modal FunctionMap", got[0].Name)
	require.Equal(t, job.SpanContext().SpanID(), got[0].Parent.SpanID())
	require.Equal(t, "modal FunctionCallCancel", got[1].Name)
	require.Equal(t, trace.Status{Code: codes.Error, Description: "Unavailable"}, got[1].Status)
}
