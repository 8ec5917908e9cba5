package fakemodal

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"path"
	"slices"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// service is the server's gRPC face. What it does not have answers UNIMPLEMENTED.
type service struct {
	pb.UnimplementedModalClientServer
	s *Server
}

type empty = emptypb.Empty

// Request is one that somebody has made.
type Request struct {
	Method string // "FunctionMap"
	TaskID string // the container that made it; "" for clients
	Time   time.Time
	// Message is what came. Requests that are made all the time are counted only.
	Message proto.Message
}

// Polls and bulk, which are counted and not kept.
var unkept = []string{
	"AppHeartbeat", "AuthTokenGet", "ContainerHeartbeat", "FunctionGetCallGraph", "FunctionGetCurrentStats", "FunctionGetInputs",
	"FunctionGetOutputs", "FunctionPutOutputs", "MountPutFile", "QueueGet", "QueueHeartbeat", "QueueLen", "QueueNextItems", "QueuePut",
}

// Requests returns what has been asked by these methods, oldest first; without methods everything that is kept.
func (s *Server) Requests(methods ...string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Request
	for _, r := range s.requests {
		if len(methods) == 0 || slices.Contains(methods, r.Method) {
			found = append(found, r)
		}
	}
	return found
}

// Count returns how many requests of a method have come, answered well or not.
func (s *Server) Count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[method]
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	container := taskID(ctx) != ""
	s.record(ctx, info.FullMethod, req)
	for _, f := range s.faultsFor(info.FullMethod, container, false) {
		if err := f.spoil(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.authenticate(ctx); err != nil {
		return nil, err
	}
	answer, err := next(ctx, req)
	for _, f := range s.faultsFor(info.FullMethod, container, true) {
		if err := f.spoil(ctx); err != nil {
			return nil, err
		}
	}
	return answer, err
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	s.record(ss.Context(), info.FullMethod, nil)
	for _, f := range s.faultsFor(info.FullMethod, taskID(ss.Context()) != "", false) {
		if err := f.spoil(ss.Context()); err != nil {
			return err
		}
	}
	if err := s.authenticate(ss.Context()); err != nil {
		return err
	}
	return next(srv, ss)
}

func (s *Server) record(ctx context.Context, method string, req any) {
	r := Request{Method: path.Base(method), TaskID: taskID(ctx), Time: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[r.Method]++
	if m, ok := req.(proto.Message); ok && !slices.Contains(unkept, r.Method) {
		r.Message = m
		s.requests = append(s.requests, r)
	}
}

// taskAddr is the address of a container's connections: at Modal too a container is known by the socket that it talks
// through, for it sends no credentials (CODE: client.py from_env, grpc_utils.py create_channel).
type taskAddr string

func (taskAddr) Network() string  { return "task" }
func (a taskAddr) String() string { return string(a) }

// taskListener is one container's socket.
type taskListener struct {
	net.Listener
	id string
}

type taskConn struct {
	net.Conn
	id string
}

func (l taskListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return taskConn{c, l.id}, nil
}

func (c taskConn) RemoteAddr() net.Addr { return taskAddr(c.id) }

func taskID(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		if a, ok := p.Addr.(taskAddr); ok {
			return string(a)
		}
	}
	return ""
}

func (s *Server) authenticate(ctx context.Context) error {
	if taskID(ctx) != "" {
		return nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	id, secret := md.Get("x-modal-token-id"), md.Get("x-modal-token-secret")
	if len(id) == 0 || len(secret) == 0 {
		return status.Error(codes.Unauthenticated, "Token missing. Could not authenticate client.")
	}
	if id[0] != s.opts.TokenID || secret[0] != s.opts.TokenSecret {
		return status.Error(codes.Unauthenticated, "Token validation failed")
	}
	return nil
}

// AuthTokenGet answers something of a JWT's shape: the SDKs read "exp" out of it and nothing else (CODE:
// auth_token_manager.go, auth_token_manager.py).
func (v *service) AuthTokenGet(context.Context, *pb.AuthTokenGetRequest) (*pb.AuthTokenGetResponse, error) {
	claims := fmt.Sprintf(`{"exp":%d}`, time.Now().Add(time.Hour).Unix())
	part := base64.RawURLEncoding.EncodeToString
	token := part([]byte(`{"alg":"none"}`)) + "." + part([]byte(claims)) + "." + part([]byte("fakemodal"))
	return pb.AuthTokenGetResponse_builder{Token: token}.Build(), nil
}

func notFound(format string, args ...any) error {
	return status.Errorf(codes.NotFound, format, args...)
}
func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

func seconds(s float32) time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// unix is a time as Modal writes it, in seconds since 1970; 0 for none.
func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}
