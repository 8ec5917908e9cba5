package comfy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of a graph. They stand far above what ComfyUI itself can run, and keep a hostile body cheap.
const (
	MaxNodes = 20_000
	MaxDepth = 100
	MaxKeys  = 400_000
	// MaxChain is the largest number of nodes that may follow one another. ComfyUI walks links by recursion: measured on
	// 0.3.75, a chain of 981 nodes runs, one of 984 passes its validation and then ends its execution thread, connected
	// or not, and a longer one is refused.
	MaxChain = 950
)

// Graph is a ComfyUI workflow in API format that has passed the structural checks of [ParseGraph]. It never changes.
type Graph struct {
	Nodes map[string]*Node

	order   []string
	raw     []byte
	circles [][]string // the strongly connected parts of more than one node, or of one that feeds itself
}

// Node of a graph.
type Node struct {
	ClassType string
	// Inputs are the client's values, digit for digit, without white space. They are shared with the graph: read only.
	Inputs map[string]json.RawMessage
	Title  string // _meta.title

	members []member
	inputs  []member
	links   []Link
}

// GraphError says why something is not a graph that ComfyUI can run.
type GraphError struct {
	// Message is for the person who sent it: what, where, and what to do.
	Message string
	// NodeErrors are the reasons node by node, where nodes are to blame.
	NodeErrors NodeErrors
	// UI says that it is the editor's own save format, which is no graph as it stands: it can be converted where the
	// node classes are known.
	UI bool
	// File is that format's document, checked and without white space, where [ParseGraph] found it.
	File []byte
}

// Error makes a GraphError an error.
func (e *GraphError) Error() string { return e.Message }

// ParseGraph reads a workflow in ComfyUI's API format: a JSON object, or a JSON string that holds one. Every error is a
// [*GraphError].
//
// It refuses what ComfyUI cannot read as it was meant (invalid JSON, a key that stands twice, NaN and numbers that
// Python reads as infinite, halves of characters in names), what exceeds the bounds above, and the graphs that end
// ComfyUI's execution thread, or keep it busy for ever, whatever nodes they are made of: a node without a class_type or
// without an object "inputs" (also one that nothing is connected to), chains longer than [MaxChain], and what exceeds
// [MaxCacheWork]. It refuses names of files that ComfyUI would save and not hand out, too.
//
// Whether a link to a missing node or a circle does harm depends on which nodes ComfyUI will run, so that is not asked
// here but by [Graph.BrokenLinks]. No graph may reach a ComfyUI before that was asked.
func ParseGraph(data []byte) (*Graph, error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if !utf8.Valid(data) {
		return nil, &GraphError{Message: "The workflow is not valid UTF-8: " + invalidAt(data) + ". Send JSON encoded as UTF-8."}
	}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '"' {
		inner, err := unwrap(trimmed)
		if err != nil {
			return nil, &GraphError{Message: "The workflow is a JSON string that cannot be read: " + err.Error() + "."}
		}
		data = bytes.TrimPrefix(inner, []byte("\uFEFF"))
	}
	if err := isObject(data); err != nil {
		return nil, err
	}
	raw, err := compact(data)
	if err != nil {
		return nil, &GraphError{Message: "The workflow cannot be read: " + err.Error() + "."}
	}
	top := members(raw)
	if err := otherFormat(raw, top); err != nil {
		return nil, err
	}
	return build(raw, top)
}

// unwrap decodes the JSON string that a client sent instead of the object in it.
func unwrap(data []byte) ([]byte, error) {
	quoted, err := compact(data)
	if err != nil {
		return nil, err
	}
	return unescape(nil, quoted)
}

func isObject(data []byte) error {
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if len(trimmed) > 0 && trimmed[0] == '{' {
		return nil
	}
	got := "a number or a bare word"
	switch {
	case len(trimmed) == 0:
		got = "empty"
	case trimmed[0] == '[':
		got = "a list"
	case trimmed[0] == '"':
		got = "a string"
	case bytes.HasPrefix(trimmed, []byte("null")):
		got = "null"
	case trimmed[0] == 't', trimmed[0] == 'f':
		got = "true or false"
	}
	return &GraphError{Message: fmt.Sprintf(
		"The workflow is %s: it must be a JSON object in ComfyUI's API format, such as {\"1\": {\"class_type\": ..., \"inputs\": {...}}, ...}.", got)}
}

func invalidAt(data []byte) string {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return fmt.Sprintf("byte 0x%02X at offset %d", data[i], i)
		}
		i += n
	}
	return "at its end"
}

// build makes the graph of checked, compact JSON.
func build(raw []byte, top []member) (*Graph, error) {
	if len(top) == 0 {
		return nil, &GraphError{Message: "The workflow is empty: it has no node, so nothing that could make an output (ComfyUI: prompt_no_outputs)."}
	}
	g := &Graph{Nodes: make(map[string]*Node, len(top)), order: make([]string, 0, len(top)), raw: raw}
	faults := NodeErrors{}
	for _, m := range top {
		id := m.key()
		n, fault := newNode(id, m.value)
		if fault != nil && len(faults) < MaxReported {
			faults[id] = NodeError{ClassType: n.ClassType, Errors: []InputError{*fault}, DependentOutputs: []string{}}
		}
		g.Nodes[id] = n
		g.order = append(g.order, id)
	}
	if len(faults) > 0 {
		return nil, &GraphError{Message: faults.Summary(), NodeErrors: faults}
	}
	longest := g.findCircles()
	if longest > MaxChain {
		return nil, &GraphError{Message: fmt.Sprintf(
			"The workflow has a chain of %d nodes, each feeding the next. ComfyUI follows links by recursion and stops working beyond about 980; at most %d are accepted. Split the workflow.",
			longest, MaxChain)}
	}
	if g.cacheWork(MaxCacheWork) > MaxCacheWork {
		return nil, &GraphError{Message: "The workflow's nodes depend on so many others that ComfyUI would spend minutes and gigabytes on comparing them with its cache before it starts. Split the workflow."}
	}
	return g, nil
}

// newNode reads one node. ComfyUI's execution thread touches class_type and inputs of every node, connected or not, and
// ends where one is missing.
func newNode(id string, raw []byte) (*Node, *InputError) {
	n := &Node{}
	if raw[0] != '{' {
		return n, &InputError{Type: "invalid_prompt",
			Message: fmt.Sprintf("Node %s is not an object with class_type and inputs", quote(id)),
			Details: fmt.Sprintf("Node ID '#%s' is %s", clip(id), clip(string(raw)))}
	}
	n.members = members(raw)
	var class, inputs []byte
	for _, m := range n.members {
		switch m.key() {
		case "class_type":
			class = m.value
		case "inputs":
			inputs = m.value
		case "_meta":
			n.Title = title(m.value)
		}
	}
	if len(class) < 3 || class[0] != '"' {
		return n, &InputError{Type: "invalid_prompt",
			Message: fmt.Sprintf("Cannot execute because node %s is missing the class_type property", quote(id)),
			Details: fmt.Sprintf("Node ID '#%s'", clip(id))}
	}
	n.ClassType = text(class)
	if len(inputs) == 0 || inputs[0] != '{' {
		return n, &InputError{Type: "exception_during_validation",
			Message: fmt.Sprintf("Node %s (%s) has no object \"inputs\"; give it {\"inputs\": {}} at least", quote(id), clip(n.ClassType)),
			Details: "'inputs'"}
	}
	n.inputs = members(inputs)
	n.Inputs = make(map[string]json.RawMessage, len(n.inputs))
	for _, m := range n.inputs {
		name := m.key()
		n.Inputs[name] = json.RawMessage(m.value)
		if l, ok := parseLink(m.value); ok {
			l.Node, l.Input = id, name
			n.links = append(n.links, l)
		} else if fault := prefixFault(id, n.ClassType, name, m.value); fault != nil {
			return n, fault
		}
	}
	return n, nil
}

func title(meta []byte) string {
	if meta[0] != '{' {
		return ""
	}
	for _, m := range members(meta) {
		if m.key() == "title" && m.value[0] == '"' {
			return text(m.value)
		}
	}
	return ""
}

// JSON is the graph as the client sent it, without white space: the same order, digits and escapes. Read only.
func (g *Graph) JSON() []byte { return g.raw }

// IDs lists the nodes in natural order: "2" before "10", "57" before "57:8".
func (g *Graph) IDs() []string { return slices.SortedFunc(slices.Values(g.order), CompareIDs) }

// CompareIDs orders node IDs as a person would: runs of digits by their value, the rest by its bytes.
func CompareIDs(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		dx, dy := digits(x), digits(y)
		if dx == 0 || dy == 0 {
			if x[0] != y[0] {
				return cmp.Compare(x[0], y[0])
			}
			x, y = x[1:], y[1:]
			continue
		}
		nx, ny := strings.TrimLeft(x[:dx], "0"), strings.TrimLeft(y[:dy], "0")
		if c := cmp.Or(cmp.Compare(len(nx), len(ny)), strings.Compare(nx, ny)); c != 0 {
			return c
		}
		x, y = x[dx:], y[dy:]
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(a, b))
}

func digits(s string) int {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}
