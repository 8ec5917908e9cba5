package fakecomfy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// prompt is one in the queue.
type prompt struct {
	number  float64
	id      string
	client  string
	graph   map[string]node
	raw     json.RawMessage
	outputs []string
	node    string // the one that runs
	life    int
	stop    chan struct{} // closed when the life that it belongs to ends
}

type node struct {
	ClassType string                     `json:"class_type"`
	Inputs    map[string]json.RawMessage `json:"inputs"`
}

// result is what a node has made, as the cache keeps it.
type result struct {
	values []any
	ui     map[string]any
}

// item is the prompt as /queue and /history show it.
func (p *prompt) item() []any {
	return []any{p.number, p.id, p.raw, map[string]any{"client_id": p.client}, p.outputs}
}

func (s *Server) work() {
	for {
		s.mu.Lock()
		for !s.closed && (s.dead || len(s.queue) == 0) {
			s.wake.Wait()
		}
		if s.closed {
			s.mu.Unlock()
			return
		}
		slices.SortStableFunc(s.queue, func(a, b *prompt) int {
			if a.number < b.number {
				return -1
			}
			return 1
		})
		p := s.queue[0]
		s.queue = s.queue[1:]
		if s.swallows {
			s.swallows, s.dead = false, true
			s.mu.Unlock()
			continue
		}
		s.running = p
		s.runs[p.id]++
		s.interrupted = false
		dies := s.poisoned || missingLink(p)
		s.dead, s.poisoned = dies, false
		s.queueChanged()
		s.mu.Unlock()
		if !dies {
			s.execute(p)
		}
	}
}

// missingLink finds what kills ComfyUI's execution thread although it has accepted the prompt.
func missingLink(p *prompt) bool {
	for _, n := range p.graph {
		for _, v := range n.Inputs {
			if from, _, ok := link(v); ok && p.graph[from].ClassType == "" {
				return true
			}
		}
	}
	return false
}

func link(v json.RawMessage) (from string, slot int, ok bool) {
	var pair []any
	if json.Unmarshal(v, &pair) != nil || len(pair) != 2 {
		return "", 0, false
	}
	from, isText := pair[0].(string)
	n, isNumber := pair[1].(float64)
	return from, int(n), isText && isNumber
}

// raised is an exception in a node.
type raised struct{ kind, text string }

func (r *raised) Error() string { return r.text }

var errInterrupted = &raised{"InterruptProcessingException", ""}

func (s *Server) current(p *prompt) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life == p.life
}

// execution is one run of a prompt.
type execution struct {
	s        *Server
	p        *prompt
	marks    map[string]string
	done     map[string]*result
	ran      []string
	messages []any
	shown    map[string]map[string]any
}

func (s *Server) execute(p *prompt) {
	x := &execution{s: s, p: p, marks: map[string]string{}, done: map[string]*result{}, shown: map[string]map[string]any{}}
	x.say("execution_start", map[string]any{})
	var cached []string
	keep := map[string]bool{}
	s.mu.Lock()
	for _, id := range slices.Sorted(maps.Keys(p.graph)) {
		keep[x.mark(id)] = true
		if s.cache[x.mark(id)] != nil {
			cached = append(cached, id)
		}
	}
	for mark := range s.cache {
		if !keep[mark] {
			delete(s.cache, mark)
		}
	}
	s.mu.Unlock()
	x.say("execution_cached", map[string]any{"nodes": append([]string{}, cached...)})
	status := "success"
	for _, id := range p.outputs {
		if err := x.run(id); err != nil {
			status = "error"
			x.failed(err)
			break
		}
	}
	if status == "success" {
		x.say("execution_success", map[string]any{})
	}
	x.end(status)
}

// say keeps a message about the run and sends it.
func (x *execution) say(kind string, data map[string]any) {
	data["prompt_id"] = x.p.id
	data["timestamp"] = time.Now().UnixMilli()
	x.messages = append(x.messages, []any{kind, data})
	x.tell(kind, data)
}

func (x *execution) tell(kind string, data map[string]any) {
	data["prompt_id"] = x.p.id
	if x.p.client != "" {
		x.s.send(x.p, kind, data)
	}
}

// failure is an error with the node that it happened in.
type failure struct {
	node string
	err  *raised
}

func (f *failure) Error() string { return f.err.text }

func (x *execution) failed(err error) {
	f := err.(*failure)
	data := map[string]any{"node_id": f.node, "node_type": x.p.graph[f.node].ClassType, "executed": x.ran}
	if f.err == errInterrupted {
		x.say("execution_interrupted", data)
		return
	}
	data["exception_type"], data["exception_message"] = f.err.kind, f.err.text+"\n"
	data["traceback"] = []string{"  File \"/srv/comfyui/execution.py\", line 510, in execute\n    output_data = await get_output_data()\n"}
	data["current_inputs"] = map[string]any{}
	x.say("execution_error", data)
}

// run runs what a node depends on, and the node.
func (x *execution) run(id string) error {
	if x.done[id] != nil {
		return nil
	}
	n := x.p.graph[id]
	in := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(n.Inputs)) {
		from, slot, ok := link(n.Inputs[name])
		if !ok {
			var v any
			_ = json.Unmarshal(n.Inputs[name], &v)
			in[name] = v
			continue
		}
		if err := x.run(from); err != nil {
			return err
		}
		in[name] = x.done[from].values[slot]
	}
	s, mark := x.s, x.mark(id)
	s.mu.Lock()
	hit := s.cache[mark]
	gate, fails, class := s.gates[n.ClassType], s.failures[n.ClassType], s.classes[n.ClassType]
	s.mu.Unlock()
	if hit == nil {
		x.set(id)
		x.tell("executing", map[string]any{"node": id, "display_node": id})
		if x.stopped() {
			return &failure{id, errInterrupted}
		}
		gate.pass(x.p.stop)
		if !s.current(x.p) {
			return &failure{id, errInterrupted}
		}
		if fails[0] != "" {
			return &failure{id, &raised{fails[0], fails[1]}}
		}
		values, ui, err := class.run(x, id, in)
		if err != nil {
			return &failure{id, err}
		}
		hit = &result{values, ui}
		s.mu.Lock()
		s.nodeRuns[n.ClassType]++
		if s.life == x.p.life && !class.always {
			s.cache[mark] = hit
		}
		s.mu.Unlock()
		x.ran = append(x.ran, id)
	}
	x.done[id] = hit
	if hit.ui != nil {
		x.shown[id] = hit.ui
		x.tell("executed", map[string]any{"node": id, "display_node": id, "output": hit.ui})
	}
	states := map[string]any{}
	for done := range x.done {
		states[done] = map[string]any{"state": "finished", "value": 1, "max": 1}
	}
	x.tell("progress_state", map[string]any{"nodes": states})
	return nil
}

func (x *execution) set(id string) {
	x.s.mu.Lock()
	x.p.node = id
	x.s.changedLocked()
	x.s.mu.Unlock()
}

// stopped tells whether the prompt has been interrupted. As in ComfyUI, only some places ask.
func (x *execution) stopped() bool {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	return x.s.interrupted || x.s.life != x.p.life
}

// mark is the cache's key of a node: its class, its inputs, declared or not, and those of all its ancestors. The
// caller need not hold mu, except for a LoadImage, whose file counts.
func (x *execution) mark(id string) string {
	if m, ok := x.marks[id]; ok {
		return m
	}
	n := x.p.graph[id]
	var b strings.Builder
	b.WriteString(n.ClassType)
	for _, name := range slices.Sorted(maps.Keys(n.Inputs)) {
		if from, slot, ok := link(n.Inputs[name]); ok {
			fmt.Fprintf(&b, "|%s<%s#%d", name, x.mark(from), slot)
			continue
		}
		fmt.Fprintf(&b, "|%s=%s", name, n.Inputs[name])
		if n.ClassType == "LoadImage" {
			if f := x.s.files["input"][inputName(n.Inputs[name])]; f != nil {
				fmt.Fprintf(&b, "%x", sha256.Sum256(f.data))
			}
		}
	}
	sum := sha256.Sum256([]byte(b.String()))
	x.marks[id] = hex.EncodeToString(sum[:])
	return x.marks[id]
}

func inputName(raw json.RawMessage) string {
	var name string
	_ = json.Unmarshal(raw, &name)
	return strings.TrimSuffix(name, " [input]")
}

// end writes the history and says so.
func (x *execution) end(status string) {
	s, p := x.s, x.p
	s.mu.Lock()
	gate := s.historyEnd
	s.mu.Unlock()
	gate.pass(p.stop)
	outputs := map[string]any{}
	for id, ui := range x.shown {
		outputs[id] = ui
	}
	entry := map[string]any{
		"prompt": p.item(), "outputs": outputs, "meta": map[string]any{},
		"status": map[string]any{"status_str": status, "completed": status == "success", "messages": x.messages},
	}
	data, err := json.Marshal(map[string]any{p.id: entry})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.tb.Errorf("fakecomfy: %v", err)
	}
	if s.life != p.life {
		return
	}
	s.history[p.id] = data
	s.running = nil
	s.queueChanged()
	if k := s.sockets[p.client]; k != nil {
		s.sendLocked(k, "executing", map[string]any{"node": nil, "prompt_id": p.id})
	}
}
