package comfyui

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/comfyd/comfyd/backend"
)

// NodeOutputs are the outputs of one node.
type NodeOutputs struct {
	id    string
	Files []backend.File
	Texts []backend.Text
	// BySocket counts the entries that say that an image came by socket.
	BySocket int
	seen     map[[3]string]bool
}

// ReadOutputs reads what the history lists for a node: every list, whatever its name. Entries with a filename are files,
// texts are texts, and those that came by socket are counted. An entry of any other kind is kept as a text, in JSON,
// because nothing that a node shows is dropped; only the flags beside a list of files ("animated": [true]) are.
func ReadOutputs(id string, raw json.RawMessage) NodeOutputs {
	n := NodeOutputs{id: id, seen: map[[3]string]bool{}}
	n.read(raw)
	return n
}

func (n *NodeOutputs) read(raw json.RawMessage) {
	if len(raw) == 0 {
		return
	}
	var lists map[string]json.RawMessage
	if json.Unmarshal(raw, &lists) != nil {
		n.text(raw)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(lists)) {
		var items []json.RawMessage
		if json.Unmarshal(lists[key], &items) != nil {
			items = []json.RawMessage{lists[key]}
		}
		for _, item := range items {
			n.item(key, item)
		}
	}
}

func (n *NodeOutputs) item(key string, raw json.RawMessage) {
	var f struct {
		Filename  string `json:"filename"`
		Subfolder string `json:"subfolder"`
		Type      string `json:"type"`
		Source    string `json:"source"`
	}
	isObject := len(raw) > 0 && raw[0] == '{' && json.Unmarshal(raw, &f) == nil
	switch {
	case isObject && f.Filename != "":
		if f.Type == "" {
			f.Type = "output"
		}
		at := [3]string{f.Type, f.Subfolder, f.Filename}
		if !n.seen[at] {
			n.seen[at] = true
			n.Files = append(n.Files, backend.File{NodeID: n.id, Key: key, Filename: f.Filename, Subfolder: f.Subfolder, Folder: f.Type})
		}
	case isObject && f.Source == "websocket":
		n.BySocket++
	case key == "animated" && (string(raw) == "true" || string(raw) == "false"), string(raw) == "null":
	default:
		n.text(raw)
	}
}

func (n *NodeOutputs) text(raw json.RawMessage) {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		text = string(raw)
	}
	n.Texts = append(n.Texts, backend.Text{NodeID: n.id, Text: text})
}

// FrameName names the n-th image, from 1, that a node has sent by socket, where it has no name of its own.
func FrameName(node string, n int, ext string) string {
	return fmt.Sprintf("node_%s_%05d%s", unsafeName.ReplaceAllString(node, "_"), n, ext)
}
