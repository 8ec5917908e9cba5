package app

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// resourceHeader is a hint for Temporal's proxies. The SDK puts the workflow's ID into it as it is, and gRPC refuses what is
// not printable ASCII: a child with such an ID would never get an answer from a worker.
const resourceHeader = "temporal-resource-id"

func withoutOddHeaders(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if md, ok := metadata.FromOutgoingContext(ctx); ok && slices.ContainsFunc(md.Get(resourceHeader), odd) {
		md.Delete(resourceHeader) // md is a copy
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	return call(ctx, method, req, reply, cc, opts...)
}

func odd(value string) bool {
	return strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' })
}
