// Package fakecomfy is a ComfyUI for tests: the part of its HTTP and WebSocket interface that comfyd uses, over a real
// listener, with a queue, a history, a cache and a handful of nodes that behave as ComfyUI 0.3.75's do, and switches
// for everything that goes wrong with one. Nothing in it sleeps to be in time: a test holds it at a [Gate].
package fakecomfy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
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
	historyEnd *Gate
	failures   map[string][2]string
	refused    map[string]string
	refusals   []refusal
	drops      []bool // whether each of the next posts is queued before its connection is dropped
	muted      bool
	noSockets  bool
	nan        bool
	oldStop    bool
	previews   bool
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
		step: 2 * time.Millisecond, cut: -1}
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
	s.counter, s.sockets, s.poisoned, s.dead, s.interrupted = map[string]int{}, map[string]*socket{}, false, false, false
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
	gates := []*Gate{s.httpGate, s.historyEnd}
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

// Await waits until f, which is called without a lock, is true. It ends the test after ten seconds.
func (s *Server) Await(what string, f func() bool) {
	s.tb.Helper()
	limit := time.After(10 * time.Second)
	for {
		s.mu.Lock()
		c := s.changed
		s.mu.Unlock()
		if f() {
			return
		}
		select {
		case <-c:
		case <-limit:
			s.tb.Fatalf("fakecomfy: waited 10 s for: %s", what)
		}
	}
}

// Gate holds something up until it is opened.
type Gate struct {
	reached chan struct{}
	open    chan struct{}
	once    sync.Once
	first   sync.Once
	tb      testing.TB
}

func newGate(tb testing.TB) *Gate {
	return &Gate{reached: make(chan struct{}), open: make(chan struct{}), tb: tb}
}

// Reached waits until something stands at the gate. It ends the test after ten seconds.
func (g *Gate) Reached() {
	g.tb.Helper()
	select {
	case <-g.reached:
	case <-time.After(10 * time.Second):
		g.tb.Fatal("fakecomfy: nothing came to the gate for 10 s")
	}
}

// Open lets what stands there pass, and all that comes later.
func (g *Gate) Open() {
	if g != nil {
		g.once.Do(func() { close(g.open) })
	}
}

func (g *Gate) pass(stop <-chan struct{}) {
	if g == nil {
		return
	}
	g.first.Do(func() { close(g.reached) })
	select {
	case <-g.open:
	case <-stop:
	}
}

// Hold makes every node of a class wait, silent and not to be interrupted, before it runs.
func (s *Server) Hold(class string) *Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gates[class] = newGate(s.tb)
	return s.gates[class]
}

// HoldHistory makes finished prompts wait between execution_success and their entry in the history.
func (s *Server) HoldHistory() *Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.historyEnd = newGate(s.tb)
	return s.historyEnd
}

// HoldHTTP makes every request hang. Sockets stay open.
func (s *Server) HoldHTTP() *Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.httpGate = newGate(s.tb)
	return s.httpGate
}

// FailNode makes the nodes of a class raise an exception; an empty one makes them well again.
func (s *Server) FailNode(class, exception, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures[class] = [2]string{exception, message}
	if exception == "" {
		delete(s.failures, class)
	}
}

// Refuse makes the validation of a class's nodes fail for a reason that the catalogue does not show.
func (s *Server) Refuse(class, reason string) { s.set(func() { s.refused[class] = reason }) }

// AnswerPost makes the next POST /prompt answer so, without queueing.
func (s *Server) AnswerPost(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusals = append(s.refusals, refusal{status, body})
}

// DropPost breaks the connection of the next POST /prompt, before or after it is queued.
func (s *Server) DropPost(queued bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drops = append(s.drops, queued)
}

// Poison makes the execution thread die of the next prompt: everything is answered, and nothing runs any more.
func (s *Server) Poison() { s.set(func() { s.poisoned = true }) }

// Mute makes sockets silent.
func (s *Server) Mute(on bool) { s.set(func() { s.muted = on }) }

// NoSockets refuses new sockets.
func (s *Server) NoSockets(on bool) { s.set(func() { s.noSockets = on }) }

// NaN puts bare NaN tokens into histories and refusals.
func (s *Server) NaN(on bool) { s.set(func() { s.nan = on }) }

// OldInterrupt makes /interrupt pay no heed to prompt_id, as old versions do.
func (s *Server) OldInterrupt(on bool) { s.set(func() { s.oldStop = on }) }

// Previews makes VAEDecodeTiled send a preview image at each step, as samplers do.
func (s *Server) Previews(on bool) { s.set(func() { s.previews = on }) }

// CutViews makes /view stop after n bytes of a body; -1 for whole ones.
func (s *Server) CutViews(n int) { s.set(func() { s.cut = n }) }

// Login wants HTTP basic authentication.
func (s *Server) Login(user, password string) { s.set(func() { s.user, s.pass = user, password }) }

// Step sets how long each step of VAEDecodeTiled takes.
func (s *Server) Step(d time.Duration) { s.set(func() { s.step = d }) }

// AddOutput adds an output node that takes one input "source" of any kind and shows ui.
func (s *Server) AddOutput(name string, ui map[string]any) {
	s.set(func() { s.classes[name] = shower(ui) })
}

// RemoveClass takes a node class away, as a missing custom node pack would.
func (s *Server) RemoveClass(name string) { s.set(func() { delete(s.classes, name) }) }

func (s *Server) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// CloseSockets breaks the sockets that are open.
func (s *Server) CloseSockets() {
	s.mu.Lock()
	socks := s.takeSockets()
	s.mu.Unlock()
	for _, k := range socks {
		k.drop()
	}
}

// Broadcast sends a text message to every socket.
func (s *Server) Broadcast(kind string, data map[string]any) { s.send(nil, kind, data) }

// BroadcastImage sends an image to every socket, as ComfyUI does for prompts without a client ID.
func (s *Server) BroadcastImage(png []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.sockets {
		k.binary(append([]byte{0, 0, 0, 1, 0, 0, 0, 2}, png...))
	}
}

// Sockets counts the open ones.
func (s *Server) Sockets() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sockets)
}

// Runs counts how often a prompt has been started.
func (s *Server) Runs(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[id]
}

// TotalRuns counts all starts.
func (s *Server) TotalRuns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.runs {
		n += c
	}
	return n
}

// NodeRuns counts how often a node of a class ran rather than came from the cache.
func (s *Server) NodeRuns(class string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodeRuns[class]
}

// Posted returns the bodies that POST /prompt has got.
func (s *Server) Posted() []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]json.RawMessage(nil), s.posted...)
}

// Interrupts returns the prompt_id of every POST /interrupt, "" for a global one.
func (s *Server) Interrupts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.interrupts...)
}

// Requests counts those of a method and path, such as "GET /queue".
func (s *Server) Requests(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[what]
}

// Waiting counts the prompts that wait.
func (s *Server) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// Forget takes a prompt out of the history.
func (s *Server) Forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.history, id)
}

// Has tells whether the history has a prompt.
func (s *Server) Has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history[id] != nil
}

// Files returns the contents of a folder, "input", "output" or "temp", by path.
func (s *Server) Files(folder string) map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string][]byte{}
	for name, f := range s.files[folder] {
		out[name] = f.data
	}
	return out
}

// PutFile writes a file as somebody else would.
func (s *Server) PutFile(folder, name string, data []byte, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[folder][name] = &file{data: data, at: at}
}

// RemoveFile deletes one.
func (s *Server) RemoveFile(folder, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[folder][name] == nil {
		s.tb.Errorf("fakecomfy: no file %s/%s among %v", folder, name, maps.Keys(s.files[folder]))
	}
	delete(s.files[folder], name)
}

func join(subfolder, name string) string {
	return strings.TrimPrefix(fmt.Sprintf("%s/%s", strings.Trim(subfolder, "/"), name), "/")
}
