package comfyui

import (
	"encoding/json"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// Tracker turns events into progress that never goes back.
type Tracker struct {
	plan     *Plan
	done     map[string]bool
	current  string
	step     float64
	steps    float64
	best     float64
	running  bool
	position *int
	dirty    bool
}

// NewTracker starts at nothing done.
func NewTracker(p *Plan) *Tracker { return &Tracker{plan: p, done: map[string]bool{}} }

// Event takes a message of ComfyUI's socket.
func (t *Tracker) Event(kind string, n *Note) {
	switch kind {
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

func (t *Tracker) finish(id string) {
	if t.plan.Nodes[id] { // nodes that others expanded into are not counted
		t.done[id] = true
	}
}

// Place notes the position in ComfyUI's queue, -1 for a prompt that runs.
func (t *Tracker) Place(position int) {
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

// Update returns news, if there are any.
func (t *Tracker) Update() (backend.Update, bool) {
	if !t.dirty {
		return backend.Update{}, false
	}
	t.dirty = false
	p := comfy.Progress{NodesDone: len(t.done), NodesTotal: len(t.plan.Nodes), CurrentNode: t.current, Step: int(t.step), Steps: int(t.steps)}
	if p.NodesTotal > 0 {
		value := float64(p.NodesDone)
		if t.plan.Nodes[t.current] && !t.done[t.current] && t.steps > 0 {
			value += min(max(t.step/t.steps, 0), 1)
		}
		t.best = min(max(t.best, value/float64(p.NodesTotal)), 1)
	}
	p.Value = t.best
	return backend.Update{Progress: p, Running: t.running, QueuePosition: t.position}, true
}

// Finish notes that the prompt has ended well: every node of the plan is done.
func (t *Tracker) Finish() {
	for id := range t.plan.Nodes {
		t.finish(id)
	}
	t.Place(-1)
	t.current, t.step, t.steps, t.dirty = "", 0, 0, true
}

// Current is the node that runs, empty between nodes.
func (t *Tracker) Current() string { return t.current }

// Position is the place in the queue that was noted last; nil where there is none.
func (t *Tracker) Position() *int { return t.position }
