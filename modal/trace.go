package modal

import (
	"context"
	"path"
	"strings"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// traced makes a span of each call that is part of a trace, but for those that are made again and again while a prompt
// runs. Modal itself is not told: nothing of ours reads it there.
func traced(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	parent, name := trace.SpanFromContext(ctx), path.Base(method)
	if !parent.IsRecording() || name == "FunctionGetOutputs" || strings.HasPrefix(name, "Queue") {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	ctx, span := parent.TracerProvider().Tracer("github.com/comfyd/comfyd/modal").Start(ctx, "modal "+name, trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	err := invoke(ctx, method, req, reply, cc, opts...)
	if err != nil {
		span.SetStatus(codes.Error, status.Code(err).String())
	}
	return err
}
