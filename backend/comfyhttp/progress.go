package comfyhttp

import (
	"encoding/json"
	"maps"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// plan is what ComfyUI will do with a graph: run the output nodes and everything that they depend on.
type plan struct {
	outputs map[string]bool
	nodes   map[string]bool
	sockets map[string]bool // those among them whose images come by socket only
	links   map[string][]string
	// isText tells the inputs that take free text; nil where nobody knows the classes.
	isText func(class, input string) bool
}

func newPlan(g *comfy.Graph, outputs []string) *plan {
	p := &plan{outputs: map[string]bool{}, nodes: map[string]bool{}, sockets: map[string]bool{}, links: map[string][]string{}}
	todo := append([]string(nil), outputs...)
	for _, id := range outputs {
		p.outputs[id] = true
	}
	for _, l := range g.Links() {
		p.links[l.Node] = append(p.links[l.Node], l.From)
	}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		node := g.Nodes[id]
		if node == nil || p.nodes[id] {
			continue
		}
		p.nodes[id] = true
		p.sockets[id] = p.outputs[id] && socketClass(node.ClassType)
		todo = append(todo, p.links[id]...)
	}
	maps.DeleteFunc(p.sockets, func(_ string, is bool) bool { return !is })
	return p
}

// allCached tells whether nothing but output nodes ran. What a cached node depends on does not count: it was not
// looked at.
func (p *plan) allCached(cached []string) bool {
	in := map[string]bool{}
	for _, id := range cached {
		in[id] = true
	}
	found := false
	seen := map[string]bool{}
	var walk func(id string) bool
	walk = func(id string) bool {
		for _, from := range p.links[id] {
			if seen[from] {
				continue
			}
			seen[from] = true
			switch {
			case p.outputs[from]:
				if !walk(from) {
					return false
				}
			case !in[from]:
				return false
			default:
				found = true
			}
		}
		return true
	}
	for id := range p.outputs {
		if !walk(id) {
			return false
		}
	}
	return found
}

// tracker turns events into progress that never goes back.
type tracker struct {
	plan     *plan
	done     map[string]bool
	current  string
	step     float64
	steps    float64
	best     float64
	running  bool
	position *int
	dirty    bool
}

func newTracker(p *plan) *tracker { return &tracker{plan: p, done: map[string]bool{}} }

func (t *tracker) event(e event) {
	n := &e.note
	switch e.kind {
	case "execution_cached":
		for _, id := range n.nodeList() {
			t.finish(id)
		}
	case "executing":
		t.finish(t.current)
		t.current, t.step, t.steps = "", 0, 0
		if n.Node != nil {
			t.current = *n.Node
		}
	case "executed":
		if n.Node != nil {
			t.finish(*n.Node)
		}
	case "progress":
		if n.Node == nil || *n.Node == t.current {
			t.step, t.steps = n.Value, n.Max
		}
	case "progress_state":
		var nodes map[string]struct {
			State string `json:"state"`
		}
		_ = json.Unmarshal(n.Nodes, &nodes)
		for id, s := range nodes {
			if s.State == "finished" {
				t.finish(id)
			}
		}
	default:
		return
	}
	t.dirty = true
}

func (t *tracker) finish(id string) {
	if t.plan.nodes[id] { // nodes that others expanded into are not counted
		t.done[id] = true
	}
}

// place notes the position in ComfyUI's queue, -1 for a prompt that runs.
func (t *tracker) place(position int) {
	if position < 0 {
		if !t.running {
			t.running, t.position, t.dirty = true, nil, true
		}
		return
	}
	if t.position == nil || *t.position != position {
		t.position, t.dirty = &position, true
	}
}

// update returns news, if there are any.
func (t *tracker) update() (backend.Update, bool) {
	if !t.dirty {
		return backend.Update{}, false
	}
	t.dirty = false
	p := comfy.Progress{NodesDone: len(t.done), NodesTotal: len(t.plan.nodes), CurrentNode: t.current, Step: int(t.step), Steps: int(t.steps)}
	if p.NodesTotal > 0 {
		value := float64(p.NodesDone)
		if t.plan.nodes[t.current] && !t.done[t.current] && t.steps > 0 {
			value += min(max(t.step/t.steps, 0), 1)
		}
		t.best = min(max(t.best, value/float64(p.NodesTotal)), 1)
	}
	p.Value = t.best
	return backend.Update{Progress: p, Running: t.running, QueuePosition: t.position}, true
}
