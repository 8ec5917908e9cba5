// Package fakecomfy is a ComfyUI for tests: the part of its HTTP and WebSocket interface that comfyd uses, over a real
// listener, with a queue, a history, a cache and a handful of nodes that behave as ComfyUI 0.3.75's do, and switches
// for everything that goes wrong with one. Nothing in it sleeps to be in time: a test holds it at a [Gate].
package fakecomfy

import (
	"encoding/json"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a ComfyUI. All methods are safe for concurrent use.
type Server struct {
	// URL is where it listens, http://127.0.0.1:port.
	URL string

	tb   testing.TB
	addr string

	mu       sync.Mutex
	wake     *sync.Cond // the queue, or whether the engine may run, has changed
	http     *http.Server
	serving  sync.WaitGroup
	engine   sync.WaitGroup
	closed   bool
	life     int // counts restarts; what belongs to an earlier one is dropped
	dead     bool
	poisoned bool
	swallows bool

	number  int
	queue   []*prompt
	running *prompt
	history map[string]json.RawMessage
	cache   map[string]*result
	files   map[string]map[string]*file
	counter map[string]int
	sockets map[string]*socket

	classes    map[string]*class
	gates      map[string]*Gate
	httpGate   *Gate
	viewGate   *Gate
	historyEnd *Gate
	stepGate   *Gate
	heldStep   int
	failures   map[string][2]string
	refused    map[string]string
	refusals   []refusal
	drops      []bool // whether each of the next posts is queued before its connection is dropped
	late       *Gate
	muted      bool
	noSockets  bool
	nan        bool
	oldStop    bool
	previews   bool
	side       int // of previews
	cut        int
	user, pass string
	step       time.Duration

	interrupted bool
	runs        map[string]int
	nodeRuns    map[string]int
	posted      []json.RawMessage
	interrupts  []string
	requests    map[string]int
	changed     chan struct{} // closed and replaced at each change that a test may wait for
}

type refusal struct {
	status int
	body   string
}

// New starts a ComfyUI that ends with the test.
func New(tb testing.TB) *Server {
	s := &Server{tb: tb, classes: builtin(), gates: map[string]*Gate{}, failures: map[string][2]string{}, refused: map[string]string{},
		runs: map[string]int{}, nodeRuns: map[string]int{}, requests: map[string]int{}, changed: make(chan struct{}),
		step: 2 * time.Millisecond, side: 16, cut: -1}
	s.wake = sync.NewCond(&s.mu)
	s.forget()
	s.files = map[string]map[string]*file{"input": {}, "output": {}, "temp": {}}
	s.Start()
	s.engine.Go(s.work)
	tb.Cleanup(s.close)
	return s
}

// forget empties what a ComfyUI keeps in memory only. The caller holds mu, or nobody else knows s.
func (s *Server) forget() {
	s.life++
	s.queue, s.running, s.history, s.cache = nil, nil, map[string]json.RawMessage{}, map[string]*result{}
	s.counter, s.sockets, s.poisoned, s.swallows, s.dead, s.interrupted = map[string]int{}, map[string]*socket{}, false, false, false, false
}

// Start listens again after Stop, on the same port.
func (s *Server) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return
	}
	at := s.addr
	if at == "" {
		at = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		s.tb.Fatalf("fakecomfy: %v", err)
	}
	s.addr = l.Addr().String()
	s.URL = "http://" + s.addr
	h := &http.Server{Handler: s.handler()}
	s.http = h
	s.serving.Go(func() { _ = h.Serve(l) })
}

// Stop refuses connections and breaks the open ones. The engine runs on, as behind a broken network.
func (s *Server) Stop() {
	s.mu.Lock()
	h := s.http
	s.http = nil
	socks := s.takeSockets()
	s.mu.Unlock()
	if h != nil {
		_ = h.Close()
	}
	for _, k := range socks {
		k.drop()
	}
}

// Kill is kill -9: connections break, and all that was in memory is lost. Start brings an empty one up.
func (s *Server) Kill() {
	s.Stop()
	s.mu.Lock()
	s.forget()
	s.files["temp"] = map[string]*file{}
	s.mu.Unlock()
	s.change()
}

// Restart is Kill and Start.
func (s *Server) Restart() {
	s.Kill()
	s.Start()
}

func (s *Server) close() {
	s.mu.Lock()
	s.closed = true
	gates := []*Gate{s.httpGate, s.viewGate, s.historyEnd, s.stepGate, s.late}
	for _, g := range s.gates {
		gates = append(gates, g)
	}
	s.mu.Unlock()
	for _, g := range gates {
		g.Open()
	}
	s.Kill()
	s.engine.Wait()
	s.serving.Wait()
}

// change wakes the engine and whoever waits in Await.
func (s *Server) change() {
	s.mu.Lock()
	s.changedLocked()
	s.mu.Unlock()
}

func (s *Server) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
	s.wake.Broadcast()
}

// Await waits until f, which is called without a lock, is true. It ends the test where it does not become so.
func (s *Server) Await(what string, f func() bool) {
	s.tb.Helper()
	limit := time.After(patience)
	look := time.NewTicker(10 * time.Millisecond) // f may ask somebody else
	defer look.Stop()
	for {
		s.mu.Lock()
		c := s.changed
		s.mu.Unlock()
		if f() {
			return
		}
		select {
		case <-c:
		case <-look.C:
		case <-limit:
			s.tb.Fatalf("fakecomfy: waited %s for: %s", patience, what)
		}
	}
}

func join(subfolder, name string) string {
	return strings.TrimPrefix(path.Clean("/"+subfolder+"/"+name), "/")
}
