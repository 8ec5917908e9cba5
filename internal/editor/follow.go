package editor

import (
	"encoding/json"
	"slices"
	"strings"
)

// source is where an input's value comes from: an output of a node, or a widget that a subgraph shows.
type source struct {
	node  *instance
	slot  int
	value json.RawMessage
}

// passed is an input or an output that a link led through, to find circles.
type passed struct {
	in     *instance
	slot   int
	output bool
}

// trail follows one input's link.
type trail struct {
	c    *converter
	from *instance // whose input is asked for
	name string
	seen map[passed]bool
}

// follow finds what an input is connected to in the end, through everything that only the editor knows.
func (c *converter) follow(in *instance, i int) (source, bool) {
	if in.inputs[i].link == "" {
		return source{}, false
	}
	t := &trail{c: c, from: in, name: in.inputs[i].name, seen: map[passed]bool{}}
	return t.input(in, i, in.inputs[i].kind)
}

func (t *trail) fail(format string, args ...any) (source, bool) {
	t.c.fail(t.from, "its input %q cannot be followed: "+format, append([]any{clip(t.name)}, args...)...)
	return source{}, false
}

// pass notes where the link has led, and says whether to go on.
func (t *trail) pass(p passed) bool {
	if !t.c.spend(1) {
		return false
	}
	if len(t.seen) >= maxTrail {
		t.fail("it leads through more than %d places", maxTrail)
		return false
	}
	if t.seen[p] {
		t.fail("the links go round in a circle through node %s", p.in.id)
		return false
	}
	t.seen[p] = true
	return true
}

// input follows a node's input; kind is the type of the input that asks.
func (t *trail) input(in *instance, i int, kind string) (source, bool) {
	if !t.pass(passed{in, i, false}) || in.inputs[i].link == "" {
		return source{}, false
	}
	l, ok := in.in.canvas.links[in.inputs[i].link]
	if !ok {
		return t.fail("the file has no link %s", clip(in.inputs[i].link))
	}
	if host := in.in.host; host != nil && l.from == fromOutside {
		switch {
		case l.slot >= len(host.inputs):
			return t.fail("the subgraph has no input %d", l.slot)
		case host.inputs[l.slot].link != "":
			return t.input(host, l.slot, host.inputs[l.slot].kind)
		case l.slot < len(host.promoted) && host.promoted[l.slot] != nil:
			return source{value: host.promoted[l.slot]}, true
		}
		return source{}, false
	}
	from := in.in.byID[l.from]
	if from == nil {
		return t.fail("the link %s begins at node %s, which the file does not have", clip(in.inputs[i].link), clip(l.from))
	}
	return t.output(from, l.slot, kind)
}

// output finds what gives a node's output its value.
func (t *trail) output(in *instance, i int, kind string) (source, bool) {
	if !t.pass(passed{in, i, true}) {
		return source{}, false
	}
	if in.node.mode == modeMuted {
		if in.class == nil && in.inside == nil && len(in.inputs) > 0 && in.inputs[0].link != "" {
			return t.fail("the %s %s is muted, and versions of the editor differ in what that means. Delete it, or switch it on", clip(in.node.kind), in.id)
		}
		return source{}, false
	}
	if in.node.mode == modeBypass {
		return t.bypass(in, i, kind)
	}
	switch {
	case in.inside != nil:
		return t.into(in, i, kind)
	case in.node.kind == getNode:
		return t.set(in, kind)
	case in.class == nil:
		if i < len(in.inputs) {
			return t.input(in, i, kind)
		}
		return source{}, false // a primitive: its value stands in the widget
	}
	return source{node: in, slot: i}, true
}

// into follows an output of a subgraph to its inside.
func (t *trail) into(host *instance, i int, kind string) (source, bool) {
	outputs := host.inside.canvas.outputs
	if i >= len(outputs) {
		return t.fail("the subgraph %s has no output %d", host.id, i)
	}
	for _, id := range outputs[i].links {
		if !t.c.spend(1) {
			return source{}, false
		}
		l, ok := host.inside.canvas.links[id]
		if !ok {
			continue
		}
		if l.from == fromOutside {
			return t.fail("an input of the subgraph %s leads straight to its output", host.id)
		}
		from := host.inside.byID[l.from]
		if from == nil {
			return t.fail("a link in the subgraph %s begins at node %s, which the file does not have", host.id, clip(l.from))
		}
		return t.output(from, l.slot, kind)
	}
	return source{}, false
}

// bypass lets a link pass through a node that is switched off, by the first input that fits.
func (t *trail) bypass(in *instance, i int, kind string) (source, bool) {
	given, ok := in.output(i)
	if !ok {
		return t.fail("the bypassed node %s has no output %d", in.id, i)
	}
	if !t.c.spend(len(in.inputs)) {
		return source{}, false
	}
	fits := func(s slot) bool {
		return t.c.spend((len(s.kind)+len(given)+len(kind))/32) && connects(s.kind, given) && connects(s.kind, kind)
	}
	k := -1
	switch {
	case kind == "*" || kind == "":
		if k = i; i >= len(in.inputs) {
			k = 0
		}
	case i < len(in.inputs) && fits(in.inputs[i]):
		k = i
	default:
		if k = slices.IndexFunc(in.inputs, func(s slot) bool { return s.kind == kind }); k < 0 {
			k = slices.IndexFunc(in.inputs, fits)
		}
	}
	if k < 0 || k >= len(in.inputs) {
		return source{}, false
	}
	return t.input(in, k, in.inputs[k].kind)
}

// connects is the editor's rule for which types may be linked; each may be a list with commas.
func connects(a, b string) bool {
	kinds := map[string]bool{}
	for y := range strings.SplitSeq(strings.ToLower(b), ",") {
		kinds[y] = true
	}
	if kinds["*"] || kinds[""] {
		return true
	}
	for x := range strings.SplitSeq(strings.ToLower(a), ",") {
		if x == "*" || x == "" || kinds[x] {
			return true
		}
	}
	return false
}

// The editor's own nodes, and those of widely used packs that are nothing but drawing.
const (
	primitive = "PrimitiveNode"
	getNode   = "GetNode" // KJNodes'
	setNode   = "SetNode"
)

// virtual says whether a node exists in the editor alone. Links go through it, if it has an input.
func virtual(kind string) bool {
	switch kind {
	case "Reroute", "Note", "MarkdownNote", primitive, getNode, setNode,
		"Reroute (rgthree)", "Label (rgthree)", "Bookmark (rgthree)", "Fast Groups Muter (rgthree)", "Fast Groups Bypasser (rgthree)":
		return true
	}
	return false
}

// set finds the SetNode that a GetNode names.
func (t *trail) set(get *instance, kind string) (source, bool) {
	name := get.node.value
	found := get.in.canvas.setters[name]
	if name == "" || len(found) != 1 || len(found[0].inputs) == 0 {
		return t.fail("GetNode %s asks for %q, which %d SetNodes beside it give", get.id, clip(name), len(found))
	}
	return t.input(get.in.byID[found[0].id], 0, kind)
}
