package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

const (
	// maxNodes bounds the nodes that one refusal names, maxLookups the searches for near names in it.
	maxNodes   = 100
	maxLookups = 20
)

// Check returns what ComfyUI's own validation (validate_prompt in its execution.py) would refuse the graph for, and what
// would end its execution thread; nil where it would run. It goes by the output nodes and what they depend on, and reports
// every output that could not be made: ComfyUI itself drops such an output in silence when another one is sound.
//
// It is never stricter than ComfyUI: where /object_info does not tell whether a check holds (classes from elsewhere may
// check for themselves, types may be wildcards, files may lie in folders that are not listed), the graph is accepted.
//
// inputs are the names of the files that come with the job. The key [comfy.WholeGraph] says that there is no output node.
func (c *Catalog) Check(g *comfy.Graph, inputs []string) comfy.NodeErrors {
	k := &checker{c: c, g: g, files: map[string]bool{}, done: map[string]bool{}, errs: comfy.NodeErrors{}}
	for _, name := range inputs {
		k.files[name] = true
	}
	if k.unknownClasses(); len(k.errs) > 0 {
		return k.errs // ComfyUI looks no further, and most of the rest would follow from it
	}
	outputs := c.OutputNodes(g)
	if len(outputs) == 0 {
		return comfy.NodeErrors{comfy.WholeGraph: {DependentOutputs: []string{}, Errors: []comfy.InputError{{
			Type: "prompt_no_outputs",
			Message: "The workflow has no output node, so ComfyUI would have nothing to make: add one that saves or previews, " +
				"such as SaveImage or PreviewImage",
			Details: "Prompt has no outputs",
		}}}}
	}
	maps.Copy(k.errs, g.BrokenLinks(c.isOutput))
	for _, id := range outputs {
		k.visit(id)
	}
	if len(k.errs) == 0 {
		return nil
	}
	k.dependents()
	return k.errs
}

type checker struct {
	c       *Catalog
	g       *comfy.Graph
	files   map[string]bool // that come with the job
	done    map[string]bool
	errs    comfy.NodeErrors
	lookups int
}

func (k *checker) unknownClasses() {
	nearestTo := map[string][]string{}
	for _, id := range k.g.IDs() {
		name := k.g.Nodes[id].ClassType
		if k.c.Has(name) {
			continue
		}
		near, ok := nearestTo[name]
		if !ok {
			near = k.near(name, k.c.names)
			nearestTo[name] = near
		}
		hint := ""
		if len(near) > 0 {
			hint = "; the nearest are " + strings.Join(near, ", ")
		}
		k.fault(id, comfy.InputError{
			Type:      "invalid_prompt",
			Message:   fmt.Sprintf("Node %s: the class %s does not exist in this ComfyUI (is its custom node installed?)%s", quote(id), shorten(name), hint),
			Details:   fmt.Sprintf("Node ID '#%s'", shorten(id)),
			ExtraInfo: extra("received_value", shorten(name), "nearest", near),
		})
	}
}

// visit checks one node and what it depends on, as validate_inputs does. Circles end here because every node is visited
// once; BrokenLinks has reported them.
func (k *checker) visit(id string) {
	if k.done[id] {
		return
	}
	k.done[id] = true
	n := k.g.Nodes[id]
	cl := k.c.classes[n.ClassType]
	for _, name := range cl.order {
		in := cl.inputs[name]
		raw, given := n.Inputs[name]
		at := place{id: id, n: n, cl: cl, in: in}
		switch {
		case in.dynamic() && in.kind != "COMFY_MATCHTYPE_V3":
		case !given && in.required && !in.dynamic():
			k.missing(at)
		case !given:
		case raw[0] == '[':
			if from, ok := k.link(at, raw); ok {
				k.visit(from)
			}
		case k.hidden(at, raw):
		default:
			k.value(at, decodeValue(raw))
		}
	}
}

// madeAnew are the types whose values ComfyUI makes a new value of, or refuses: what looks like a link is none afterwards.
var madeAnew = []string{"INT", "FLOAT", "STRING", "BOOLEAN"}

// hidden refuses a link that stands where nobody would check it.
func (k *checker) hidden(at place, raw []byte) bool {
	l, ok := comfy.HiddenLink(raw)
	if !ok || slices.Contains(madeAnew, at.in.kind) {
		return false
	}
	k.fault(at.id, comfy.InputError{
		Type:    "bad_linked_input",
		Message: fmt.Sprintf("%s hides a link to node %s in __value__: write the link itself", at, quote(l.From)),
		Details: at.in.name, ExtraInfo: extra("input_name", at.in.name, "linked_node", shorten(l.From)),
	})
	return true
}

// place is where a value stands.
type place struct {
	id string
	n  *comfy.Node
	cl *class
	in *input
}

// String names it for a person.
func (p place) String() string {
	return fmt.Sprintf("Input %s of node %s (%s)", quote(p.in.name), quote(p.id), shorten(p.n.ClassType))
}

func (k *checker) missing(at place) {
	var undeclared []string
	for name := range at.n.Inputs {
		if at.cl.inputs[name] == nil {
			undeclared = append(undeclared, name)
		}
	}
	slices.Sort(undeclared)
	near, hint := k.near(at.in.name, undeclared), ""
	if len(near) > 0 {
		hint = fmt.Sprintf("; it has %s, which the class does not know", quote(near[0]))
	}
	k.fault(at.id, comfy.InputError{
		Type:      "required_input_missing",
		Message:   fmt.Sprintf("Node %s (%s) lacks the required input %s%s%s", quote(at.id), shorten(at.n.ClassType), quote(at.in.name), at.in.wanted(" of type "), hint),
		Details:   at.in.name,
		ExtraInfo: extra("input_name", at.in.name, "nearest", near),
	})
}

// wanted is the type's name after a word, or nothing.
func (in *input) wanted(word string) string {
	if in.kind == "" || in.combo {
		return ""
	}
	return word + in.kind
}

// value checks what is no link.
func (k *checker) value(at place, v any) {
	var low, high int
	var err error
	var hasLow, hasHigh bool
	switch at.in.kind {
	case "INT":
		i, e := toInt(v)
		if err = e; err == nil {
			low, hasLow = compareInt(i, at.in.min)
			high, hasHigh = compareInt(i, at.in.max)
		}
	case "FLOAT":
		f, e := toFloat(v)
		if err = e; err == nil {
			low, hasLow = compareFloat(f, at.in.min)
			high, hasHigh = compareFloat(f, at.in.max)
		}
	default:
		if at.in.combo {
			k.choice(at, v)
		}
		return
	}
	switch {
	case errors.Is(err, errUnsure):
	case err != nil:
		k.fault(at.id, comfy.InputError{
			Type:      "invalid_input_type",
			Message:   fmt.Sprintf("%s must be of type %s, but is %s: %s", at, at.in.kind, show(v), err),
			Details:   fmt.Sprintf("%s, %s", at.in.name, show(v)),
			ExtraInfo: extra("input_name", at.in.name, "received_value", received(v), "allowed", at.in.kind),
		})
	case !at.cl.plain || at.in.own:
	case hasLow && low < 0:
		k.outOfRange(at, v, "value_smaller_than_min", "smaller than the least allowed, "+string(at.in.min))
	case hasHigh && high > 0:
		k.outOfRange(at, v, "value_bigger_than_max", "bigger than the most allowed, "+string(at.in.max))
	}
}

func (k *checker) outOfRange(at place, v any, kind, how string) {
	k.fault(at.id, comfy.InputError{
		Type:    kind,
		Message: fmt.Sprintf("%s is %s, which is %s", at, show(v), how),
		Details: at.in.name,
		ExtraInfo: extra("input_name", at.in.name, "received_value", received(v),
			"allowed", fmt.Sprintf("%s to %s", orAny(at.in.min), orAny(at.in.max))),
	})
}

func orAny(n json.Number) string {
	if n == "" {
		return "any"
	}
	return string(n)
}

// fault adds a reason to a node's.
func (k *checker) fault(id string, e comfy.InputError) {
	f, known := k.errs[id]
	if !known && len(k.errs) >= maxNodes {
		return
	}
	if !known {
		f = comfy.NodeError{ClassType: k.g.Nodes[id].ClassType, DependentOutputs: []string{}}
	}
	f.Errors = append(f.Errors, e)
	k.errs[id] = f
}

// near looks for near names, as often as is cheap.
func (k *checker) near(name string, names []string) []string {
	if k.lookups++; k.lookups > maxLookups {
		return nil
	}
	return nearest(name, names)
}

// dependents says which outputs each fault keeps from being made, as ComfyUI does; it gives up on absurd graphs.
func (k *checker) dependents() {
	const most = 2_000_000
	feeds := map[string][]string{}
	for _, l := range k.g.Links() {
		feeds[l.From] = append(feeds[l.From], l.Node)
	}
	steps := 0
	for id, f := range k.errs {
		seen := map[string]bool{id: true}
		todo := []string{id}
		for len(todo) > 0 && steps < most {
			at := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if k.c.isOutput(k.g.Nodes[at].ClassType) {
				f.DependentOutputs = append(f.DependentOutputs, at)
			}
			for _, next := range feeds[at] {
				steps++
				if !seen[next] {
					seen[next] = true
					todo = append(todo, next)
				}
			}
		}
		slices.SortFunc(f.DependentOutputs, comfy.CompareIDs)
		k.errs[id] = f
	}
}
