package comfy

import (
	"encoding/json"
	"maps"
	"slices"
)

// Rewrite returns the graph as compact JSON with some inputs changed, everything else byte for byte and in the order
// in which the client sent it. The graph itself stays as it is.
//
// replace is asked for each input, with its whole value, and returns another one, or nil to leave it. add may name
// inputs that a node shall have besides, declared by its class or not; where the node has one of that name, add wins.
// Both must return valid JSON, and either may be nil.
func (g *Graph) Rewrite(
	replace func(node, input string, value json.RawMessage) json.RawMessage,
	add func(node string) map[string]json.RawMessage,
) []byte {
	out := append(make([]byte, 0, len(g.raw)+len(g.raw)/8), '{')
	for _, m := range members(g.raw) {
		out = appendName(out, m.name)
		id := m.key()
		n := g.Nodes[id]
		out = append(out, '{')
		for _, part := range n.members {
			out = appendName(out, part.name)
			if part.key() != "inputs" {
				out = append(out, part.value...)
				continue
			}
			var added map[string]json.RawMessage
			if add != nil {
				added = add(id)
			}
			out = append(out, '{')
			for _, in := range n.inputs {
				name, value := in.key(), in.value
				if _, ok := added[name]; ok {
					continue
				}
				if replace != nil {
					if other := replace(id, name, json.RawMessage(value)); other != nil {
						value = other
					}
				}
				out = append(appendName(out, in.name), value...)
			}
			for _, name := range slices.Sorted(maps.Keys(added)) {
				quoted, _ := json.Marshal(name) // a string always can be
				out = append(appendName(out, quoted), added[name]...)
			}
			out = append(out, '}')
		}
		out = append(out, '}')
	}
	return append(out, '}')
}

func appendName(out, quoted []byte) []byte {
	if out[len(out)-1] != '{' {
		out = append(out, ',')
	}
	return append(append(out, quoted...), ':')
}
