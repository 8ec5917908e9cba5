package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// The description is worked on as YAML nodes, which keep the order of their entries: it is that in which a person reads
// them.

// entry is the value of a key in a mapping; nil where there is none.
func entry(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// values are those of a mapping.
func values(n *yaml.Node) []*yaml.Node {
	var all []*yaml.Node
	for i := 1; i < len(n.Content); i += 2 {
		all = append(all, n.Content[i])
	}
	return all
}

func setEntry(n *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content[i+1] = value
			return
		}
	}
	n.Content = append(n.Content, text(key), value)
}

func dropEntry(n *yaml.Node, key string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = append(n.Content[:i], n.Content[i+2:]...)
			return
		}
	}
}

// with is a mapping like n with another text under key.
func with(n *yaml.Node, key, value string) *yaml.Node {
	other := *n
	other.Content = append([]*yaml.Node{}, n.Content...)
	setEntry(&other, key, text(value))
	return &other
}

func text(value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
}

// plain is a node without aliases and merges ("<<").
func plain(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return plain(n.Alias)
	}
	out := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Value: n.Value, Style: n.Style}
	if n.Kind != yaml.MappingNode {
		for _, child := range n.Content {
			out.Content = append(out.Content, plain(child))
		}
		return out
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag == "!!merge" {
			addMissing(out, plain(n.Content[i+1]))
			continue
		}
		setEntry(out, n.Content[i].Value, plain(n.Content[i+1]))
	}
	return out
}

// addMissing adds the entries of more whose keys n does not have.
func addMissing(n, more *yaml.Node) {
	for i := 0; i+1 < len(more.Content); i += 2 {
		if entry(n, more.Content[i].Value) == nil {
			n.Content = append(n.Content, more.Content[i], more.Content[i+1])
		}
	}
}

// merge adds the entries of more to n; mappings in both become one, and nothing else may stand in both.
func merge(n, more *yaml.Node, at string) error {
	for i := 0; i+1 < len(more.Content); i += 2 {
		key, value := more.Content[i].Value, more.Content[i+1]
		here := entry(n, key)
		switch {
		case here == nil:
			n.Content = append(n.Content, more.Content[i], value)
		case here.Kind != yaml.MappingNode || value.Kind != yaml.MappingNode:
			return fmt.Errorf("%s/%s stands in another file as well", at, key)
		default:
			if err := merge(here, value, at+"/"+key); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeNode writes a node as JSON.
func writeNode(out *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.MappingNode:
		return writeList(out, n.Content, "{:}")
	case yaml.SequenceNode:
		return writeList(out, n.Content, "[,]")
	}
	var value any
	if err := n.Decode(&value); err != nil {
		return err
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	out.Write(raw)
	return nil
}

// writeList writes the entries of a mapping, whose keys are texts in JSON, or the elements of a list. marks are what
// opens it, what follows the first of two nodes, and what closes it.
func writeList(out *bytes.Buffer, nodes []*yaml.Node, marks string) error {
	out.WriteByte(marks[0])
	for i, n := range nodes {
		isKey := marks[1] == ':' && i%2 == 0
		switch {
		case i == 0:
		case marks[1] == ':' && !isKey:
			out.WriteByte(':')
		default:
			out.WriteByte(',')
		}
		if isKey {
			n = text(n.Value)
		}
		if err := writeNode(out, n); err != nil {
			return err
		}
	}
	out.WriteByte(marks[2])
	return nil
}
