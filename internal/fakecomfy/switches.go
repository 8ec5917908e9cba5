package fakecomfy

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

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

// HoldViews makes requests for files wait.
func (s *Server) HoldViews() *Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.viewGate = newGate(s.tb)
	return s.viewGate
}

// Idle tells that nothing runs and nothing waits.
func (s *Server) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running == nil && len(s.queue) == 0
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

// LatePost breaks the connection of the next POST /prompt, and queues it when the gate is opened.
func (s *Server) LatePost() *Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = newGate(s.tb)
	return s.late
}

// Poison makes the execution thread die of the next prompt: everything is answered, and nothing runs any more.
func (s *Server) Poison() { s.set(func() { s.poisoned = true }) }

// Swallow makes the execution thread die as it takes the next prompt from the queue, so that nobody has it any more, as
// ComfyUI's does of one that it cannot copy (execution.py, PromptQueue.get).
func (s *Server) Swallow() { s.set(func() { s.swallows = true }) }

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

// PreviewSize sets how many pixels a side previews have. They are noise: what they take in bytes grows with it.
func (s *Server) PreviewSize(side int) { s.set(func() { s.side = side }) }

// CutViews makes /view stop after n bytes of a body; -1 for whole ones.
func (s *Server) CutViews(n int) { s.set(func() { s.cut = n }) }

// Login wants HTTP basic authentication.
func (s *Server) Login(user, password string) { s.set(func() { s.user, s.pass = user, password }) }

// HoldStep makes VAEDecodeTiled wait after so many steps.
func (s *Server) HoldStep(n int) *Gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heldStep, s.stepGate = n, newGate(s.tb)
	return s.stepGate
}

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

// CloseSockets breaks the sockets that are open. Those that Sockets counts afterwards are new.
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
		s.tb.Errorf("fakecomfy: no file %s/%s among %v", folder, name, slices.Sorted(maps.Keys(s.files[folder])))
	}
	delete(s.files[folder], name)
}
