package cli

import (
	"encoding/json"
	"strconv"
	"strings"
)

// saved is a workflow as the editor saves it, with the nodes that stand in its subgraphs.
type saved struct {
	Nodes       []json.RawMessage `json:"nodes"`
	Definitions struct {
		Subgraphs []struct {
			ID    string            `json:"id"`
			Nodes []json.RawMessage `json:"nodes"`
		} `json:"subgraphs"`
	} `json:"definitions"`
}

// maxSavedNodes bounds what is read of subgraphs that stand in one another.
const maxSavedNodes = 20_000

// parseSaved reads the nodes of the editor's save format, by the IDs that they get when the server converts it: those in
// a subgraph behind that of its node. Their values have no names there, so each goes by its place.
func parseSaved(workflow json.RawMessage) graph {
	var s saved
	if json.Unmarshal(workflow, &s) != nil || s.Nodes == nil {
		return nil
	}
	inside := map[string][]json.RawMessage{}
	for _, d := range s.Definitions.Subgraphs {
		inside[d.ID] = d.Nodes
	}
	g := graph{}
	g.addSaved("", s.Nodes, inside)
	return g
}

func (g graph) addSaved(prefix string, nodes []json.RawMessage, inside map[string][]json.RawMessage) {
	for _, raw := range nodes {
		var n struct {
			ID     json.RawMessage `json:"id"`
			Type   string          `json:"type"`
			Title  string          `json:"title"`
			Values json.RawMessage `json:"widgets_values"`
		}
		if len(g) >= maxSavedNodes || json.Unmarshal(raw, &n) != nil {
			continue
		}
		id := prefix + strings.Trim(string(n.ID), `"`)
		known := node{ClassType: n.Type, Inputs: map[string]json.RawMessage{}}
		known.Meta.Title = n.Title
		var list []json.RawMessage
		if json.Unmarshal(n.Values, &list) != nil {
			_ = json.Unmarshal(n.Values, &known.Inputs) // some packs save names
		}
		for i, value := range list {
			if !strings.HasPrefix(n.Type, "Save") { // those name what they write
				known.Inputs[strconv.Itoa(i)] = value
			}
		}
		g[id] = known
		if strings.Count(id, ":") < 32 {
			g.addSaved(id+":", inside[n.Type], inside)
		}
	}
}
