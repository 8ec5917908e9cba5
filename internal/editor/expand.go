package editor

import (
	"encoding/json"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

// scope is one place where a canvas' nodes stand: the workflow itself, or an instance of a subgraph.
type scope struct {
	canvas *canvas
	host   *instance // the node that stands for the subgraph; nil for the workflow itself
	byID   map[string]*instance
}

// instance is a node in one scope.
type instance struct {
	id     string // the node's ID behind those of the subgraphs around it: "75:8"
	node   *node
	in     *scope
	class  *Class // nil for the editor's own nodes
	inside *scope // of a node that stands for a subgraph
	inputs []slot
	values []pair // of its widgets, in their order
	// promoted are the values of a subgraph's inputs that show a widget of its inside; nil for the others.
	promoted []json.RawMessage
}

// name is how a person finds the node.
func (in *instance) name() string {
	if in.inside != nil && in.inside.canvas.name != "" {
		return "subgraph " + clip(in.inside.canvas.name)
	}
	if t := in.node.title; t != "" && t != in.node.kind {
		return clip(in.node.kind) + ` "` + clip(t) + `"`
	}
	return clip(in.node.kind)
}

func (in *instance) title() string {
	if in.node.title != "" || in.class == nil {
		return in.node.title
	}
	return in.class.title
}

func (in *instance) active() bool { return in.node.mode != modeMuted && in.node.mode != modeBypass }

// runs says whether ComfyUI is to get the node.
func (in *instance) runs() bool { return in.class != nil && in.active() }

// expand places a canvas' nodes, and those of the subgraphs among them.
func (c *converter) expand(g *canvas, host *instance) *scope {
	s := &scope{canvas: g, host: host, byID: make(map[string]*instance, len(g.nodes))}
	depth, prefix := 0, ""
	for h := host; h != nil; h = h.in.host {
		if depth++; h != host && h.inside.canvas == g {
			c.fail(host, "the subgraph contains itself")
			return s
		}
	}
	if depth > maxNesting {
		c.over("The workflow has subgraphs that are nested deeper than %d levels.", maxNesting)
		return s
	}
	if host != nil {
		prefix = host.id + ":"
	}
	for _, n := range g.nodes {
		if len(c.all) >= comfy.MaxNodes {
			c.over("The workflow has more than %d nodes, those in subgraphs counted each time that they are used.", comfy.MaxNodes)
		}
		if !c.spend(1 + len(n.inputs) + len(n.values)/32) {
			return s
		}
		in := &instance{id: prefix + n.id, node: n, in: s}
		s.byID[n.id] = in
		c.all = append(c.all, in)
		c.place(in)
	}
	return s
}

// place finds out what a node is, and reads its inputs and widgets.
func (c *converter) place(in *instance) {
	n := in.node
	if g := c.doc.subgraphs[n.kind]; g != nil {
		c.placeHost(in, g)
		return
	}
	if strings.HasPrefix(n.kind, "workflow/") || strings.HasPrefix(n.kind, "workflow>") {
		if in.active() {
			c.fail(in, `it is a group node: choose "Convert to nodes" (or make it a subgraph) in the editor and save again`)
		}
		in.inputs = n.inputs
		return
	}
	if virtual(n.kind) {
		in.inputs = n.inputs
		return
	}
	if in.class = c.nodes.Editor(n.kind); in.class == nil {
		in.inputs = n.inputs
		if in.active() {
			c.unknown(in)
		}
		return
	}
	values, known := c.values(in)
	in.values = values
	in.connect(known)
}

// placeHost places a node that stands for a subgraph, with what is inside. One that is switched off is not looked into.
func (c *converter) placeHost(in *instance, g *canvas) {
	in.inside = &scope{canvas: g, host: in}
	if !c.spend(len(g.inputs)) {
		return
	}
	links := map[string]string{}
	for _, s := range in.node.inputs {
		links[s.name] = s.link
	}
	have := map[string]bool{}
	for _, p := range g.inputs {
		if have[p.name] {
			c.fail(in, "the subgraph has two inputs that are called %q: rename one", clip(p.name))
			return
		}
		have[p.name] = true
		in.inputs = append(in.inputs, slot{name: p.name, kind: p.kind, link: links[p.name]})
	}
	if in.in.host != nil || in.active() { // inside subgraphs the editor looks into those that are off, too
		in.inside = c.expand(g, in)
		c.promote(in)
	}
}

// unknown refuses a class that neither ComfyUI nor the editor itself has.
func (c *converter) unknown(in *instance) {
	why := "ComfyUI does not have this class of node"
	if c.lookups++; c.lookups <= maxLookups {
		if near := c.nodes.Nearest(in.node.kind); len(near) > 0 {
			why += " (did you mean " + strings.Join(near, ", ") + "?)"
		}
	}
	c.fail(in, "%s; a node that only exists in the editor cannot be converted", why)
}

// connect gives an instance its inputs in the editor's order: plain ones, those of widgets, then what only the file has.
func (in *instance) connect(known []*input) {
	saved := make(map[string]slot, len(in.node.inputs))
	for _, s := range in.node.inputs {
		saved[s.name] = s
	}
	for _, widgets := range []bool{false, true} {
		for _, i := range known {
			if i.isWidget() != widgets {
				continue
			}
			s := slot{name: i.name, kind: i.kind, link: saved[i.name].link, widget: widgets}
			if strings.HasPrefix(s.kind, "COMFY_") && saved[i.name].kind != "" {
				s.kind = saved[i.name].kind // a kind that adapts to what is connected
			}
			in.inputs = append(in.inputs, s)
		}
	}
	have := make(map[string]bool, len(in.inputs))
	for _, s := range in.inputs {
		have[s.name] = true
	}
	for _, s := range in.node.inputs {
		if !have[s.name] {
			in.inputs = append(in.inputs, s)
		}
	}
}

// output is the type of one of a node's outputs, false where it has none of that number.
func (in *instance) output(i int) (kind string, ok bool) {
	if in.class != nil && i < len(in.class.outputs) && !strings.HasPrefix(in.class.outputs[i], "COMFY_") {
		return in.class.outputs[i], true
	}
	if in.inside != nil && i < len(in.inside.canvas.outputs) {
		return in.inside.canvas.outputs[i].kind, true
	}
	if i < len(in.node.outputs) {
		return in.node.outputs[i].kind, true
	}
	return "", false
}
