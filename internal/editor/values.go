package editor

import (
	"encoding/json"
	"slices"
)

// widget is one place in widgets_values.
type widget struct {
	*input
	control bool // how the value before it changes after a run, or the filter of that
	button  bool // its value means nothing
}

// values maps a node's saved values to its widgets. It also returns the inputs that the node has: choices may bring some.
func (c *converter) values(in *instance) (pairs []pair, known []*input) {
	cl := in.class
	for _, i := range cl.inputs {
		if i.byEditor() && in.active() {
			c.fail(in, "the value of its input %q (%s) is made by the editor when the workflow is run", clip(i.name), clip(i.kind))
		}
	}
	if raw := in.node.values; len(raw) > 0 && raw[0] == '{' {
		return c.valuesByName(in, object(raw))
	}
	saved := dropForced(cl, list(in.node.values))
	rest := saved
	var fault string
	take := func(w widget) (value json.RawMessage) {
		if len(rest) == 0 {
			fault = "fewer"
			return nil
		}
		value, rest = rest[0], rest[1:]
		if w.control && !isControl(value) {
			fault = "other"
		}
		return value
	}
	var walk func(prefix string, inputs []*input)
	walk = func(prefix string, inputs []*input) {
		for _, i := range inputs {
			if prefix != "" {
				own := *i
				own.name = prefix + i.name
				i = &own
			}
			known = append(known, i)
			if i.kind == imageCompare {
				pairs = append(pairs, pair{i.name, json.RawMessage(`{"__value__":{"0":"","1":""}}`)})
			}
			if !i.isWidget() || fault != "" {
				continue
			}
			value := take(widget{input: i})
			for range i.control {
				take(widget{control: true})
			}
			if i.button {
				take(widget{button: true})
			}
			pairs = append(pairs, pair{i.name, value})
			if k := slices.IndexFunc(i.options, func(b branch) bool { return b.key == word(value) }); k >= 0 {
				walk(i.name+".", i.options[k].inputs)
			}
		}
	}
	walk("", cl.inputs)
	switch {
	case !in.active(): // nobody asks for its values
	case fault != "" || len(rest) > 0 && !meaningless(cl, rest):
		return c.valuesNamed(in, pairs, known)
	default:
		c.compare(in, pairs)
	}
	return pairs, known
}
