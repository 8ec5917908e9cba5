package modal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	sdk "github.com/modal-labs/modal-client/go"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// client is Modal's SDK, and the stubs over its connection for what the SDK does not show.
type client struct {
	sdk *sdk.Client
	raw pb.ModalClientClient
}

// errProbe ends the probe of newClient.
var errProbe = errors.New("a probe that is not sent")

// Keys of values in a call's context, for the interceptor.
type (
	probeKey struct{} // *grpc.ClientConn is put where the value points to, and nothing is sent
	sentKey  struct{} // *sent
	replyKey struct{} // func(reply any)
)

// sent is what became of a FunctionMap, the call by which Modal takes a function call on.
type sent struct{ doubt atomic.Bool }

// newClient fails where the SDK's configuration is of no use. The SDK checks the token's presence only in its first
// call, and shows its connection to interceptors alone: so one call is begun, and ended before anything is sent.
func newClient(o Options, t timing) (*client, error) {
	c, err := sdk.NewClientWithOptions(&sdk.ClientParams{
		Environment: o.Environment, Logger: slog.New(unsigned{o.SDKLog.Handler()}), MaxThrottleWait: &t.throttle,
		GRPCUnaryInterceptors: []grpc.UnaryClientInterceptor{intercept, traced},
	})
	if err != nil {
		return nil, fmt.Errorf("modal: Modal's configuration (~/.modal.toml, MODAL_*) cannot be used: %w", err)
	}
	var conn *grpc.ClientConn
	_, err = c.FunctionCalls.FromID(context.WithValue(context.Background(), probeKey{}, &conn), "fc-", nil)
	if conn == nil {
		c.Close()
		return nil, fmt.Errorf("modal: no token for Modal: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to a token made at "+
			"https://modal.com/settings/tokens, or run `modal setup`, which writes ~/.modal.toml (%w)", err)
	}
	return &client{sdk: c, raw: pb.NewModalClientClient(conn)}, nil
}

// intercept stands behind the SDK's own interceptors, so it sees each attempt of a call.
func intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if at, ok := ctx.Value(probeKey{}).(**grpc.ClientConn); ok {
		*at = cc
		return errProbe
	}
	err := invoke(ctx, method, req, reply, cc, opts...)
	if s, ok := ctx.Value(sentKey{}).(*sent); ok && err != nil && method == pb.ModalClient_FunctionMap_FullMethodName && !refused(err) {
		s.doubt.Store(true)
	}
	if see, ok := ctx.Value(replyKey{}).(func(any)); ok && err == nil {
		see(reply)
	}
	return err
}

// refused tells an error that says for certain that the request had no effect: Modal said no, or no connection came
// about. A connection that broke, or a time that ran out, may hide that it had one.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.ResourceExhausted, codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.InvalidArgument,
		codes.FailedPrecondition, codes.Unimplemented, codes.OutOfRange, codes.AlreadyExists:
		return true
	case codes.Unavailable:
		// How grpc-go words a call for which there was no connection (clientconn.go, picker_wrapper.go).
		text := status.Convert(err).Message()
		return strings.Contains(text, "connection error: desc") || strings.Contains(text, "name resolver error")
	}
	return false
}

// isNotFound tells Modal's own answer from the SDK's.
func isNotFound(err error) bool {
	var nf sdk.NotFoundError
	return status.Code(err) == codes.NotFound || errors.As(err, &nf)
}

// explain says what a failed question about the app means, for a person.
func (b *Backend) explain(err error) string {
	says := firstLine(err.Error())
	var g interface{ GRPCStatus() *status.Status }
	if errors.As(err, &g) { // without what the SDK has wrapped around it
		says = firstLine(g.GRPCStatus().Message())
	}
	where := "Modal's default environment (MODAL_ENVIRONMENT names another)"
	if b.o.Environment != "" {
		where = fmt.Sprintf("Modal's environment %q", b.o.Environment)
	}
	var undeployed *appError
	switch code := status.Code(err); {
	case errors.Is(err, errUpload):
		return says + "; see this machine's network and https://status.modal.com"
	case errors.As(err, &undeployed):
		return undeployed.Error()
	case isNotFound(err):
		return fmt.Sprintf("the app %q is not deployed in %s; deploy it with `modal deploy modal/modal_comfy_api.py`, or name another with MODAL_APP (Modal says: %s)",
			b.o.App, where, says)
	case code == codes.Unauthenticated:
		return fmt.Sprintf("Modal does not accept the token; set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to a new one from https://modal.com/settings/tokens (Modal says: %s)", says)
	case code == codes.PermissionDenied:
		return fmt.Sprintf("the token may not use %s; give it the right at Modal, or name another environment (Modal says: %s)", where, says)
	case code == codes.ResourceExhausted:
		return fmt.Sprintf("Modal takes no more at the moment: a limit of rate, of containers or of spending is reached (Modal says: %s)", says)
	case code == codes.Unavailable, code == codes.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("Modal cannot be reached; see this machine's network, MODAL_SERVER_URL and https://status.modal.com (%s)", says)
	}
	return "Modal failed to answer: " + says
}

// appError says what is wrong with the app that was found.
type appError struct{ why string }

func (e *appError) Error() string { return e.why }
