// Package comfyui knows what ComfyUI takes and what its answers mean, whatever carries them: the body of a prompt, its
// progress, its history, its refusals. Every backend reads them here, so that a job gives the same on each.
package comfyui

import (
	"maps"
	"strings"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
)

// Plan is what ComfyUI will do with a graph: run the output nodes and everything that they depend on.
type Plan struct {
	Outputs map[string]bool
	Nodes   map[string]bool
	Sockets map[string]bool // those among them whose images come by socket only
	links   map[string][]string
	// IsText tells the inputs that take free text; nil where nobody knows the classes.
	IsText func(class, input string) bool
}

// PlanOf makes the plan of a graph on a ComfyUI with this catalogue; nil where it has not been seen.
func PlanOf(cat *catalog.Catalog, g *comfy.Graph) *Plan {
	p := NewPlan(g, outputNodes(cat, g))
	if cat != nil {
		p.IsText = cat.IsText
	}
	return p
}

// NewPlan makes the plan of a graph with these output nodes.
func NewPlan(g *comfy.Graph, outputs []string) *Plan {
	p := &Plan{Outputs: map[string]bool{}, Nodes: map[string]bool{}, Sockets: map[string]bool{}, links: map[string][]string{}}
	todo := append([]string(nil), outputs...)
	for _, id := range outputs {
		p.Outputs[id] = true
	}
	for _, l := range g.Links() {
		p.links[l.Node] = append(p.links[l.Node], l.From)
	}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		node := g.Nodes[id]
		if node == nil || p.Nodes[id] {
			continue
		}
		p.Nodes[id] = true
		p.Sockets[id] = p.Outputs[id] && socketClass(node.ClassType)
		todo = append(todo, p.links[id]...)
	}
	maps.DeleteFunc(p.Sockets, func(_ string, is bool) bool { return !is })
	return p
}

// AllCached tells whether nothing but output nodes ran. What a cached node depends on does not count: it was not
// looked at.
func (p *Plan) AllCached(cached []string) bool {
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
			case p.Outputs[from]:
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
	for id := range p.Outputs {
		if !walk(id) {
			return false
		}
	}
	return found
}

// CoreSocketClass is ComfyUI's own node that sends its images by socket; each comes with one tick of its progress bar.
const CoreSocketClass = "SaveImageWebsocket"

// socketClass tells the nodes whose images are on the socket and nowhere else: SaveImageWebsocket,
// ETN_SendImageWebSocket and those named like them. A sampler's previews come the same way.
func socketClass(class string) bool { return strings.Contains(strings.ToLower(class), "websocket") }

// outputNodes falls back to the nodes that nothing links to, for a server that has not been seen since we started.
func outputNodes(cat *catalog.Catalog, g *comfy.Graph) []string {
	if cat != nil {
		return cat.OutputNodes(g)
	}
	linked := map[string]bool{}
	for _, l := range g.Links() {
		linked[l.From] = true
	}
	var ids []string
	for id := range g.Nodes {
		if !linked[id] {
			ids = append(ids, id)
		}
	}
	return ids
}
