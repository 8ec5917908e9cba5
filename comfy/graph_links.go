package comfy

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Link is an input whose value is an output of another node: [From, Slot].
type Link struct {
	Node, Input string
	From        string
	// Slot is the second element as it stands in the JSON: a number, or true or false, which Python counts as 1 and 0.
	Slot string
}

// Index is the output that the link takes; false where Slot is no whole number. Python counts -1 from the end.
func (l Link) Index() (int, bool) {
	switch l.Slot {
	case "true":
		return 1, true
	case "false":
		return 0, true
	}
	i, err := strconv.Atoi(l.Slot)
	return i, err == nil
}

// Links lists what ComfyUI takes for a link, declared by the node's class or not (comfy_execution/graph_utils.py,
// is_link): every input that is a list of two, a string and a number. Lists inside a value are none.
func (g *Graph) Links() []Link {
	var all []Link
	for _, id := range g.order {
		all = append(all, g.Nodes[id].links...)
	}
	return all
}

// parseLink reads a compact value as ComfyUI's is_link does.
func parseLink(v []byte) (Link, bool) {
	if len(v) < 2 || v[0] != '[' || v[1] != '"' {
		return Link{}, false
	}
	end := skipString(v, 1)
	if v[end] != ',' {
		return Link{}, false
	}
	slot := v[end+1 : len(v)-1]
	if len(slot) == 0 || bytes.IndexByte([]byte(`"[{n`), slot[0]) >= 0 || bytes.IndexByte(slot, ',') >= 0 {
		return Link{}, false
	}
	return Link{From: text(v[1:end]), Slot: string(slot)}, true
}

// BrokenLinks reports the links to missing nodes and the circles that make ComfyUI refuse the graph or die of it, that
// is, those among the nodes it will run: the output nodes and what they depend on. A link that the class does not
// declare counts too: ComfyUI's validation passes it by, and then its execution thread ends on it (seen on 0.3.75).
// Elsewhere both are harmless, and accepted.
//
// isOutput says whether a class is an output node; nil means that nobody knows, and then every node counts.
func (g *Graph) BrokenLinks(isOutput func(class string) bool) NodeErrors {
	reached := g.upstream(func(n *Node) bool { return isOutput == nil || isOutput(n.ClassType) })
	faults := NodeErrors{}
	add := func(id string, e InputError) {
		if _, ok := faults[id]; !ok && len(faults) >= MaxReported {
			return
		}
		f := faults[id]
		f.ClassType, f.DependentOutputs = g.Nodes[id].ClassType, []string{}
		f.Errors = append(f.Errors, e)
		faults[id] = f
	}
	for _, id := range g.order {
		if !reached[id] {
			continue
		}
		for _, l := range g.Nodes[id].links {
			if g.Nodes[l.From] == nil {
				add(id, InputError{
					Type: "exception_during_validation",
					Message: fmt.Sprintf("Input %s of node %s (%s) is linked to node %s, which the workflow does not have",
						quote(l.Input), quote(id), clip(g.Nodes[id].ClassType), quote(l.From)),
					Details:   fmt.Sprintf("%s: '%s'", clip(l.Input), clip(l.From)),
					ExtraInfo: map[string]any{"input_name": clip(l.Input), "linked_node": clip(l.From)},
				})
			}
		}
	}
	for _, circle := range g.circles {
		if !reached[circle[0]] {
			continue
		}
		path := g.walkRound(circle)
		for _, l := range path {
			add(l.Node, InputError{
				Type:      "dependency_cycle", // as ComfyUI names it since 2026; before, it gives no reason
				Message:   "These nodes feed one another in a circle, so none of them can start: " + g.drawRound(path),
				Details:   clip(l.Input),
				ExtraInfo: map[string]any{"input_name": clip(l.Input), "linked_node": clip(l.From)},
			})
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return faults
}

// upstream marks the nodes chosen and all that they depend on.
func (g *Graph) upstream(chosen func(*Node) bool) map[string]bool {
	reached := make(map[string]bool, len(g.order))
	var todo []string
	for _, id := range g.order {
		if chosen(g.Nodes[id]) {
			reached[id] = true
			todo = append(todo, id)
		}
	}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, l := range g.Nodes[id].links {
			if g.Nodes[l.From] != nil && !reached[l.From] {
				reached[l.From] = true
				todo = append(todo, l.From)
			}
		}
	}
	return reached
}

// findCircles finds the strongly connected parts (Tarjan), keeps those that are circles, and returns how many nodes the
// longest chain has, each circle counted whole.
func (g *Graph) findCircles() (longest int) {
	type state struct {
		index, low int
		stacked    bool
		depth      int // longest chain that ends here; known once the node's part is complete
	}
	type frame struct {
		id   string
		next int
	}
	states := make(map[string]*state, len(g.order))
	var stack []string
	var calls []frame
	enter := func(id string) {
		states[id] = &state{index: len(states), low: len(states), stacked: true}
		stack = append(stack, id)
		calls = append(calls, frame{id: id})
	}
	for _, root := range g.order {
		if states[root] != nil {
			continue
		}
		enter(root)
		for len(calls) > 0 {
			f := &calls[len(calls)-1]
			st, links := states[f.id], g.Nodes[f.id].links
			if f.next < len(links) {
				from := links[f.next].From
				f.next++
				if g.Nodes[from] == nil {
					continue
				}
				if to := states[from]; to == nil {
					enter(from)
				} else if to.stacked {
					st.low = min(st.low, to.index)
				}
				continue
			}
			id := f.id
			calls = calls[:len(calls)-1]
			if len(calls) > 0 {
				up := states[calls[len(calls)-1].id]
				up.low = min(up.low, st.low)
			}
			if st.low != st.index {
				continue
			}
			at := len(stack) - 1
			for stack[at] != id {
				at--
			}
			part := slices.Clone(stack[at:])
			stack = stack[:at]
			below := 0
			for _, member := range part {
				states[member].stacked = false
			}
			for _, member := range part {
				for _, l := range g.Nodes[member].links {
					if to := states[l.From]; to != nil {
						below = max(below, to.depth)
					}
				}
			}
			for _, member := range part {
				states[member].depth = below + len(part)
			}
			longest = max(longest, below+len(part))
			if len(part) > 1 || slices.ContainsFunc(g.Nodes[id].links, func(l Link) bool { return l.From == id }) {
				slices.SortFunc(part, CompareIDs)
				g.circles = append(g.circles, part)
			}
		}
	}
	return longest
}

// walkRound finds one way round in a strongly connected part.
func (g *Graph) walkRound(part []string) []Link {
	within := make(map[string]bool, len(part))
	for _, id := range part {
		within[id] = true
	}
	seen := map[string]int{}
	var path []Link
	for id := part[0]; ; {
		if at, ok := seen[id]; ok {
			return path[at:]
		}
		seen[id] = len(path)
		i := slices.IndexFunc(g.Nodes[id].links, func(l Link) bool { return within[l.From] })
		l := g.Nodes[id].links[i]
		path = append(path, l)
		id = l.From
	}
}

func (g *Graph) drawRound(path []Link) string {
	const most = 10
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)", quote(path[0].Node), clip(g.Nodes[path[0].Node].ClassType))
	for i, l := range path {
		if i == most {
			return b.String() + " <- ..."
		}
		fmt.Fprintf(&b, " <- %s (%s)", quote(l.From), clip(g.Nodes[l.From].ClassType))
	}
	return b.String()
}
