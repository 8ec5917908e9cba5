// Package editor turns what ComfyUI's editor saves (nodes and links as they lie on its canvas) into the API format that
// ComfyUI runs. It does what the editor itself does when a person presses Run, by the rules of ComfyUI_frontend
// (src/utils/executionUtil.ts, 1.32.9 and 1.58.1), and refuses, with the node named, whatever it cannot know: it never
// guesses. The node classes come from ComfyUI's /object_info, because the saved file lists values by their place only.
package editor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/comfyd/comfyd/comfy"
)

// Bounds of a conversion, beside those of the graph that comes out. They keep a hostile file cheap.
const (
	maxNesting = 32        // subgraphs in one another
	maxSteps   = 2_000_000 // what is looked at in all: inputs, nodes on the way of a link, values by their length
	maxTrail   = 100_000   // places that one link leads through
	maxGraph   = 64 << 20  // bytes that come out
	maxLookups = 20        // names of classes for which near ones are looked up
)

// Nodes tells what the editor knows of the node classes.
type Nodes interface {
	// Editor returns a class, nil where ComfyUI does not have it.
	Editor(class string) *Class
	// Nearest returns the classes that may have been meant, the likeliest first.
	Nearest(class string) []string
}

// Options are what the editor would take from its surroundings while it makes a prompt.
type Options struct {
	// Pick chooses one of n alternatives of a dynamic prompt, {one|two}.
	Pick func(n int) int
	// Now is the time for %date:...% in file names.
	Now time.Time
}

// HowElse is what always works where a conversion does not.
const HowElse = `Or open the workflow in ComfyUI, use "Workflow > Export (API)" and send that file.`

// Convert returns the graph in API format. Every error is a [*comfy.GraphError]; its node errors go by the IDs that the
// nodes have in the file, those inside a subgraph behind the ID of the subgraph's node: "75:8".
func Convert(file []byte, nodes Nodes, o Options) (json.RawMessage, error) {
	d, err := read(file)
	if err != nil {
		return nil, &comfy.GraphError{UI: true, Message: "The workflow, in the editor's save format, cannot be read: " + err.Error() + ". " + HowElse}
	}
	c := &converter{doc: d, nodes: nodes, options: o, faults: comfy.NodeErrors{}}
	root := c.expand(&d.root, nil)
	for _, in := range c.all {
		c.setPrimitive(in)
	}
	c.replaceTexts()
	graph := c.graph(root)
	if len(c.faults) > 0 {
		return nil, &comfy.GraphError{UI: true, NodeErrors: c.faults,
			Message: "This workflow is in the editor's save format and cannot be converted safely. " + c.faults.Summary() + " " + HowElse}
	}
	return graph, nil
}

// converter holds one conversion.
type converter struct {
	doc     *document
	nodes   Nodes
	options Options
	all     []*instance // every node of every instance of a subgraph, in the order of the file
	steps   int
	lookups int
	faults  comfy.NodeErrors
}

// fail notes why a node keeps the workflow from being converted.
func (c *converter) fail(in *instance, format string, args ...any) {
	if _, ok := c.faults[in.id]; !ok && len(c.faults) >= comfy.MaxReported {
		return
	}
	f := c.faults[in.id]
	f.ClassType, f.DependentOutputs = clip(in.node.kind), []string{}
	f.Errors = append(f.Errors, comfy.InputError{
		Type: "cannot_convert", Message: fmt.Sprintf("Node %s (%s): %s", clip(in.id), in.name(), fmt.Sprintf(format, args...)),
	})
	c.faults[in.id] = f
}

// over says that the file exceeds a bound, once.
func (c *converter) over(format string, args ...any) {
	c.faults[comfy.WholeGraph] = comfy.NodeError{DependentOutputs: []string{},
		Errors: []comfy.InputError{{Type: "cannot_convert", Message: fmt.Sprintf(format, args...)}}}
}

// spend counts work, and says whether to go on.
func (c *converter) spend(steps int) bool {
	if c.steps += steps; c.steps > maxSteps {
		c.over("The workflow is too large to be converted.")
	}
	return !c.stop()
}

// stop says whether a bound has been exceeded, so that nothing more is worth doing.
func (c *converter) stop() bool { _, over := c.faults[comfy.WholeGraph]; return over }

// graph writes the nodes that ComfyUI is to run.
func (c *converter) graph(root *scope) json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('{')
	for _, in := range c.all {
		if !in.runs() {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		inputs := c.inputs(in)
		if c.stop() {
			return nil
		}
		fmt.Fprintf(&b, `%s:{"class_type":%s,"inputs":{`, quote(in.id), quote(in.class.Name))
		for i, p := range inputs {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%s:%s", quote(p.name), p.value)
		}
		fmt.Fprintf(&b, `},"_meta":{"title":%s}}`, quote(in.title()))
		if b.Len() > maxGraph {
			c.over("The graph would have more than %d bytes.", maxGraph)
			return nil
		}
	}
	b.WriteByte('}')
	return b.Bytes()
}

// pair is one input of a node in the API format.
type pair struct {
	name  string
	value json.RawMessage
}

// inputs are a node's widgets' values, and over them what its links lead to.
func (c *converter) inputs(in *instance) []pair {
	pairs, at := slices.Clone(in.values), map[string]int{}
	set := func(name string, value json.RawMessage) {
		i, ok := at[name]
		if !ok {
			i, at[name] = len(pairs), len(pairs)
			pairs = append(pairs, pair{name: name})
		}
		pairs[i].value = value
	}
	for i, p := range pairs {
		at[p.name], pairs[i].value = i, wrap(c.prompted(in, p))
	}
	for i, slot := range in.inputs {
		from, ok := c.follow(in, i)
		switch {
		case !ok:
		case from.value != nil:
			set(slot.name, wrap(from.value))
		default:
			set(slot.name, json.RawMessage(fmt.Sprintf("[%s,%d]", quote(from.node.id), from.slot)))
		}
	}
	return pairs
}
