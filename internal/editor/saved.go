package editor

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// dropForced removes the values of inputs that were widgets before ComfyUI gave them up (forceInput), as the editor does
// when it opens an old file. It does so where the number of values is the one that such a file has.
func dropForced(cl *Class, values []json.RawMessage) []json.RawMessage {
	var drop []bool
	for _, i := range cl.inputs {
		switch {
		case i.kind == dynamicCombo:
			return values
		case i.force:
			drop = append(drop, true)
		case i.isWidget():
			drop = append(drop, make([]bool, 1+i.control)...)
		}
	}
	if !slices.Contains(drop, true) || len(values) != len(drop) {
		return values
	}
	var kept []json.RawMessage
	for k, v := range values {
		if !drop[k] {
			kept = append(kept, v)
		}
	}
	return kept
}

// meaningless says whether the values behind those of a class' widgets can be left out: the button for a file, the player
// of a sound, and what ComfyUI's own nodes without a widget show when they have run.
func meaningless(cl *Class, rest []json.RawMessage) bool {
	if cl.uploads && len(rest) > 0 {
		rest = rest[1:]
	}
	empty := !slices.ContainsFunc(rest, func(v json.RawMessage) bool { return string(v) != "null" && string(v) != `""` })
	plain := !slices.ContainsFunc(cl.inputs, func(i *input) bool { return i.isWidget() })
	return len(rest) == 0 || cl.core && (empty || plain)
}

func isControl(value json.RawMessage) bool {
	switch word(value) {
	case "fixed", "increment", "decrement", "randomize", "increment-wrap", "true", "false", "":
		return true
	}
	return false
}

// valuesNamed is for a file whose list of values does not fit the class: newer editors save them by name, too.
func (c *converter) valuesNamed(in *instance, pairs []pair, known []*input) ([]pair, []*input) {
	if in.node.named == nil {
		c.fail(in, "it has %d saved values, which do not fit the widgets that ComfyUI has for this class (%s): the file is from another version of it, or a script adds widgets of its own. "+
			"Open it in the editor, check the node and save again", len(list(in.node.values)), strings.Join(names(known), ", "))
		return pairs, known
	}
	return c.valuesByName(in, in.node.named)
}

// valuesByName maps values that were saved with their names. What the class does not declare is kept: packs that save in
// this way add widgets of their own, which they expect to get.
func (c *converter) valuesByName(in *instance, saved fields) (pairs []pair, known []*input) {
	for _, i := range in.class.inputs {
		known = append(known, i)
		if !i.isWidget() {
			continue
		}
		if i.kind == dynamicCombo {
			c.fail(in, "the values of its input %q are saved by name, and the choice brings inputs of its own", clip(i.name))
			return nil, known
		}
		value, ok := saved[i.name]
		if !ok && in.active() {
			c.fail(in, "the file has no value for its input %q. Open it in the editor, check the node and save again", clip(i.name))
		}
		pairs = append(pairs, pair{i.name, value})
	}
	return pairs, known
}

// compare holds the values against the names of the widgets that newer files have among the inputs.
func (c *converter) compare(in *instance, pairs []pair) {
	have := map[string]bool{"upload": in.class.uploads}
	for _, p := range pairs {
		have[p.name] = true
	}
	var strange []slot
	saved := 0
	for _, s := range in.node.inputs {
		if s.widget {
			saved++
		}
		if s.widget && !have[s.name] {
			strange = append(strange, s)
		}
	}
	for _, s := range strange {
		if saved == len(pairs) || s.link != "" {
			c.fail(in, "the file has a widget %q, which ComfyUI does not have for this class: the file is from another version of it. Open it in the editor, check the node and save again", clip(s.name))
			return
		}
	}
}

// same compares two JSON values.
func same(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	return bytes.Equal(a, b) || json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

func names(inputs []*input) (all []string) {
	for _, i := range inputs {
		if i.isWidget() {
			all = append(all, clip(i.name))
		}
	}
	if len(all) == 0 {
		all = []string{"none"}
	}
	return all[:min(len(all), 20)]
}
