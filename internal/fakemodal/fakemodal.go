// Package fakemodal is Modal's control plane for tests: the part of its gRPC interface that the Go SDK v0.11.1, the
// Python SDK 1.6.4, `modal deploy` and a container use, over the published protobuf stubs, with real containers in
// which Modal's own entrypoint runs the deployed Python file, and switches for everything that goes wrong with it.
//
// A container is a process tree on this host (Linux only): init.py, and below it `python -m modal._container_entrypoint`
// of the same wheel that deploys. What happens inside (enter and exit hooks, serialisation, cancellation, the call's ID)
// is therefore Modal's code and not an imitation. What happens outside is an imitation; comments say what it follows:
//
//	CODE   read in the published SDKs (Go v0.11.1, Python 1.6.4) or in the comments of their protobuf file
//	DOC    Modal's public documentation, or a log line in a public issue
//	GUESS  nobody outside Modal knows
//
// There is no image build, no GPU, no file system isolation, and no retries by a function's own policy: image lines and
// mounts are recorded, local files that a function mounts are laid out below the container's own folder, and its `/root`
// is what Python imports from.
package fakemodal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Environment is the only environment of the workspace.
const Environment = "main"

// Placeholders in the values of [Options.Env].
const (
	ContainerDir = "{container}" // a folder that only this container has
	VolumesDir   = "{volumes}"   // the folder in which each Volume is one by its name
)

// Options say what to start. Only Dir is needed; Python is, for containers and for Deploy.
type Options struct {
	// Dir keeps calls, inputs, results, blobs, Dicts and deployments. A server started on the folder of an earlier one
	// goes on where that one stopped.
	Dir string
	// Addr is where to listen, by default "127.0.0.1:0". Blobs are on a port of their own.
	Addr string
	// Python is the interpreter with modal installed; containers and Deploy run on it.
	Python string
	// AppFile is what Deploy deploys.
	AppFile string
	// DeployEnv is added to the environment of `modal deploy`.
	DeployEnv map[string]string
	// Env is added to the environment of every container, over what the image and its secrets set. ContainerDir and
	// VolumesDir in a value are replaced: containers share the host's file system here.
	Env map[string]string
	// Secrets exist in the workspace, by name.
	Secrets map[string]map[string]string
	// TokenID and TokenSecret are the only token that is let in, by default "ak-fake" and "as-fake".
	TokenID, TokenSecret string
	// Snapshots makes containers of functions with memory snapshots go through Modal's checkpoint and restore code,
	// without ever leaving memory.
	Snapshots bool
	// StartRetries is how often a function whose containers fail at start is tried again before all its inputs end with
	// INIT_FAILURE; -1 for ever, which is what DOC says of deployed apps.
	StartRetries int
	// CancelGrace is how long a cancelled input may go on before its container is killed, by default 30 s (GUESS).
	CancelGrace time.Duration
	// PreemptGrace is how long a preempted container lives after SIGINT, by default 30 s (DOC: guide/preemption).
	PreemptGrace time.Duration
	// PreemptOverlap lets the input of a preempted container start elsewhere while the old one is still in its grace. What
	// Modal does is a GUESS either way.
	PreemptOverlap bool
	// MaxContainers is the most containers that a function without a limit of its own gets, by default 4.
	MaxContainers int
	// MaxStreams is how many requests a client may have open on one connection; 0 for no limit. Those beyond it wait in the
	// client.
	MaxStreams uint32
	// Log is told what happens, if set.
	Log func(format string, args ...any)
}

// Server is a control plane with its containers. All methods are safe for concurrent use.
type Server struct {
	opts  Options
	store *store
	gate  *gate
	grpc  *grpc.Server
	http  *http.Server
	blobs string // the blob server's URL
	socks string // folder of the containers' sockets
	wg    sync.WaitGroup

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	closed   bool
	tables   *tables
	calls    map[string]*call
	inputs   map[string]*call
	keys     map[string]*call // by idempotency key
	dicts    map[string]*dict
	queues   map[string]*queue
	pools    map[string]*pool
	tasks    map[string]*task
	env      map[string]string
	faults   []*Fault
	requests []Request
	counts   map[string]int
	latest   time.Time // of the newest call, so that calls have an order
}

// Start serves until Stop. Calls that were running when an earlier server on the same folder stopped are run again, as
// Modal does after a preemption.
func Start(opts Options) (*Server, error) {
	opts.defaults()
	st, err := openStore(opts.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts, store: st, changed: make(chan struct{}), env: opts.Env, counts: map[string]int{},
		calls: map[string]*call{}, inputs: map[string]*call{}, keys: map[string]*call{}, dicts: map[string]*dict{}, queues: map[string]*queue{},
		pools: map[string]*pool{}, tasks: map[string]*task{}}
	if err := s.load(); err != nil {
		return nil, err
	}
	if s.socks, err = os.MkdirTemp("", "fakemodal"); err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.socks))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pools {
		s.kick(p)
	}
	return s, nil
}

func (o *Options) defaults() {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&o.Addr, "127.0.0.1:0")
	set(&o.TokenID, "ak-fake")
	set(&o.TokenSecret, "as-fake")
	if o.CancelGrace == 0 {
		o.CancelGrace = 30 * time.Second
	}
	if o.PreemptGrace == 0 {
		o.PreemptGrace = 30 * time.Second
	}
	if o.MaxContainers == 0 {
		o.MaxContainers = 4
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
}

func (s *Server) listen() error {
	l, err := net.Listen("tcp", s.opts.Addr)
	if err != nil {
		return fmt.Errorf("fakemodal: %w", err)
	}
	b, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(fmt.Errorf("fakemodal: %w", err), l.Close())
	}
	s.gate = newGate(l)
	s.blobs = "http://" + b.Addr().String()
	options := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.unary), grpc.ChainStreamInterceptor(s.stream),
		grpc.WaitForHandlers(true), grpc.MaxRecvMsgSize(100 << 20), grpc.MaxSendMsgSize(100 << 20),
		// The SDKs ping every 30 s, also without streams (CODE: client.go newClient); grpc-go's own policy would cut them off.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
	if s.opts.MaxStreams > 0 {
		options = append(options, grpc.MaxConcurrentStreams(s.opts.MaxStreams))
	}
	s.grpc = grpc.NewServer(options...)
	pb.RegisterModalClientServer(s.grpc, &service{s: s})
	s.http = &http.Server{Handler: http.HandlerFunc(s.blob), ReadHeaderTimeout: time.Minute}
	s.wg.Go(func() { _ = s.grpc.Serve(s.gate) })
	s.wg.Go(func() { _ = s.http.Serve(b) })
	return nil
}

// Stop ends the server as a power cut would: connections are cut and containers are killed. It returns when nothing of
// it is left but its folder.
func (s *Server) Stop() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	for _, t := range s.tasks {
		if !t.ended {
			t.why = "the server stopped"
		}
		t.kill()
	}
	for _, p := range s.pools {
		p.stop()
	}
	for _, c := range s.calls {
		c.stopTimer()
	}
	for _, f := range s.faults {
		f.Clear()
	}
	s.notify()
	s.mu.Unlock()
	s.grpc.Stop()
	_ = s.http.Close()
	s.wg.Wait()
	_ = os.RemoveAll(s.socks)
}

// URL is the control plane's address, http://host:port.
func (s *Server) URL() string { return "http://" + s.Addr() }

// Addr is where the control plane listens, host:port.
func (s *Server) Addr() string { return s.gate.Addr().String() }

// Env is what a client needs in its environment, SDK or command line.
func (s *Server) Env() map[string]string {
	return map[string]string{
		"MODAL_SERVER_URL": s.URL(), "MODAL_TOKEN_ID": s.opts.TokenID, "MODAL_TOKEN_SECRET": s.opts.TokenSecret, "MODAL_ENVIRONMENT": Environment,
		// Nothing of the user's own configuration may leak into a test.
		"MODAL_CONFIG_PATH": s.store.path("modal.toml"),
	}
}

// SetEnv sets one variable in the environment of containers that start from now on.
func (s *Server) SetEnv(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	env := map[string]string{name: value}
	for k, v := range s.env {
		if k != name {
			env[k] = v
		}
	}
	s.env = env
}

// notify wakes everybody who waits for a change. s.mu is held.
func (s *Server) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await calls done with s.mu held, at once and after each change, until it returns true, ctx ends or the time is over.
// It returns with s.mu held, and whether done was true.
func (s *Server) await(ctx context.Context, until time.Time, done func() bool) bool {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for !done() {
		if s.closed {
			return false
		}
		changed := s.changed
		s.mu.Unlock()
		over := false
		select {
		case <-changed:
		case <-timer.C:
			over = true
		case <-ctx.Done():
			over = true
		}
		s.mu.Lock()
		if over {
			return done()
		}
	}
	return true
}
