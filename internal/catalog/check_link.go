package catalog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

// link checks an input that is a list, and returns the node that it leads to, if that exists. ComfyUI takes every list
// for a link here (validate_inputs).
func (k *checker) link(at place, raw json.RawMessage) (from string, ok bool) {
	list, _ := decodeValue(raw).([]any)
	if len(list) != 2 {
		k.fault(at.id, comfy.InputError{
			Type:      "bad_linked_input",
			Message:   fmt.Sprintf("%s is a list, and a list must be a link of two, [node ID, output number], but is %s", at, show(list)),
			Details:   at.in.name,
			ExtraInfo: extra("input_name", at.in.name, "received_value", received(list)),
		})
		return "", false
	}
	from, isText := list[0].(string)
	source := k.g.Nodes[from]
	if !isText || source == nil {
		if !isText || !linkSlot(list[1]) { // otherwise BrokenLinks has said it
			k.badLink(at, list, fmt.Sprintf("links to node %s, which the workflow does not have", show(list[0]))+asText(k.g, list[0]))
		}
		return "", false
	}
	returns := k.c.classes[source.ClassType]
	i, sound := slot(list[1], len(returns.returns))
	if !sound {
		if returns.fixed {
			k.badLink(at, list, fmt.Sprintf("takes output %s of node %s (%s), which has %s", show(list[1]), quote(from), shorten(source.ClassType), count(len(returns.returns))))
			return "", false
		}
		return from, true
	}
	if !k.fits(at, returns, returns.returns[i]) {
		k.fault(at.id, comfy.InputError{
			Type: "return_type_mismatch",
			Message: fmt.Sprintf("%s takes %s, but output %d of node %s (%s) gives %s",
				at, at.in.takes(), i, quote(from), shorten(source.ClassType), returns.returns[i]),
			Details: fmt.Sprintf("%s, received_type(%s) mismatch input_type(%s)", at.in.name, returns.returns[i], at.in.takes()),
			ExtraInfo: extra("input_name", at.in.name, "received_type", returns.returns[i], "linked_node", list,
				"allowed", at.in.takes()),
		})
	}
	return from, true
}

func (k *checker) badLink(at place, list []any, why string) {
	k.fault(at.id, comfy.InputError{
		Type:      "exception_during_validation",
		Message:   fmt.Sprintf("%s %s", at, why),
		Details:   fmt.Sprintf("%s: %s", at.in.name, show(list)),
		ExtraInfo: extra("input_name", at.in.name, "received_value", received(list)),
	})
}

// asText says what was meant where a node's ID stands as a number.
func asText(g *comfy.Graph, id any) string {
	n, ok := id.(json.Number)
	if !ok || g.Nodes[string(n)] == nil {
		return ""
	}
	return fmt.Sprintf(": node IDs are texts, so write [%q, ...]", string(n))
}

func count(outputs int) string {
	if outputs == 1 {
		return "one output, 0"
	}
	return fmt.Sprintf("%d outputs, counted from 0", outputs)
}

// linkSlot says whether ComfyUI's is_link would take the second element.
func linkSlot(v any) bool {
	switch v.(type) {
	case json.Number, bool:
		return true
	}
	return false
}

// slot is Python's index into a tuple of n: true counts as 1, -1 from the end, and a number with a point is none.
func slot(v any, n int) (int, bool) {
	i, ok := 0, true
	switch v := v.(type) {
	case bool:
		if v {
			i = 1
		}
	case json.Number:
		i, ok = comfy.Link{Slot: string(v)}.Index()
	default:
		ok = false
	}
	if i < 0 {
		i += n
	}
	return i, ok && i >= 0 && i < n
}

// takes names what an input may be linked to.
func (in *input) takes() string {
	if in.kind == "" {
		return "a choice from a list"
	}
	return in.kind
}

// fits is validate_node_input (comfy_execution/validation.py) where both classes are ComfyUI's own, and true where types
// may be more than they show.
func (k *checker) fits(at place, source *class, received string) bool {
	wanted := at.in.kind
	if !at.cl.plain || !source.plain || received == "" || wanted == "" && (!at.in.combo || received == "COMBO") {
		return true
	}
	types := strings.Split(received, ",")
	for i, t := range types {
		types[i] = strings.TrimSpace(t)
	}
	if open(types) {
		return true
	}
	if wanted == "" {
		return false // a list of options takes no link
	}
	want := strings.Split(wanted, ",")
	for i, t := range want {
		want[i] = strings.TrimSpace(t)
	}
	return open(want) || slices.ContainsFunc(want, func(t string) bool { return slices.Contains(types, t) })
}

// open types match everything, or are settled elsewhere.
func open(types []string) bool {
	return slices.ContainsFunc(types, func(t string) bool { return t == "*" || strings.HasPrefix(t, "COMFY_") })
}
