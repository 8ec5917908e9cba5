package editor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Marks of the editor.
const (
	fromOutside = "-10" // where links from a subgraph's inputs begin
	modeMuted   = "2"
	modeBypass  = "4"
)

// document is a saved workflow.
type document struct {
	root      canvas
	subgraphs map[string]*canvas // by the type of the nodes that stand for them
}

// canvas is the nodes and links of the workflow itself, or of one subgraph.
type canvas struct {
	name    string
	nodes   []*node
	byID    map[string]*node
	links   map[string]link
	leaving map[string][]string // the links that begin at a node
	setters map[string][]*node  // SetNodes by the name that they give
	inputs  []port              // of a subgraph
	outputs []port
}

// port is where links enter or leave a subgraph.
type port struct {
	name, kind string
	links      []string
}

type link struct {
	from, to string
	slot     int // of the node that it comes from
}

// node is one as it was saved.
type node struct {
	id, kind, title, mode string
	inputs, outputs       []slot
	values                json.RawMessage            // widgets_values: a list, or an object in some packs
	value                 string                     // the first of them, of a GetNode or a SetNode: what they call the link
	named                 map[string]json.RawMessage // the same by name, as newer editors save it
	proxies               [][2]string                // a subgraph's widgets: node and widget inside it
	alias                 string                     // by which file names may call it
	replaces              bool                       // a primitive that replaces %...% in its text
}

// slot is an input or an output of a node.
type slot struct {
	name, kind string
	link       string // "" where nothing is connected
	widget     bool
}

// fields is an object. Keys are told apart by case, as JavaScript does.
type fields map[string]json.RawMessage

func read(file []byte) (*document, error) {
	var top fields
	if err := json.Unmarshal(file, &top); err != nil {
		return nil, err
	}
	d := &document{subgraphs: map[string]*canvas{}}
	if err := d.root.read(top); err != nil {
		return nil, err
	}
	if err := d.define(top); err != nil {
		return nil, err
	}
	// The extension "Use Everywhere" links nodes without links, by rules of its own, when a person presses Run.
	if extra := object(top["extra"]); len(list(extra["ue_links"])) > 0 {
		return nil, errors.New(`it has links of the extension "Use Everywhere" (extra.ue_links), which only the editor can draw`)
	}
	return d, nil
}

// define reads the definitions of subgraphs, also those that stand inside others.
func (d *document) define(in fields) error {
	for _, raw := range list(object(in["definitions"])["subgraphs"]) {
		f := object(raw)
		id := word(f["id"])
		if id == "" {
			return errors.New("a subgraph in definitions.subgraphs has no id")
		}
		if d.subgraphs[id] != nil {
			return fmt.Errorf("the subgraph %q is defined twice", clip(id))
		}
		g := &canvas{name: word(f["name"]), inputs: ports(f["inputs"]), outputs: ports(f["outputs"])}
		d.subgraphs[id] = g
		if err := g.read(f); err != nil {
			return fmt.Errorf("in the subgraph %q: %w", clip(g.name), err)
		}
		if err := d.define(f); err != nil {
			return err
		}
	}
	return nil
}

func (g *canvas) read(f fields) error {
	g.byID, g.links = map[string]*node{}, map[string]link{}
	g.leaving, g.setters = map[string][]string{}, map[string][]*node{}
	for i, raw := range list(f["nodes"]) {
		n := readNode(object(raw))
		if n.id == "" || n.kind == "" {
			return fmt.Errorf("entry %d of nodes has no id or no type", i)
		}
		if g.byID[n.id] != nil {
			return fmt.Errorf("the node ID %q stands twice", clip(n.id))
		}
		g.nodes, g.byID[n.id] = append(g.nodes, n), n
		if n.kind == setNode {
			g.setters[n.value] = append(g.setters[n.value], n)
		}
	}
	links := list(f["links"])
	if byID := object(f["links"]); len(byID) > 0 { // schema 1 has them in an object in some files
		for _, raw := range byID {
			links = append(links, raw)
		}
	}
	for _, raw := range links {
		if id, l, ok := readLink(raw); ok {
			g.links[id] = l
			g.leaving[l.from] = append(g.leaving[l.from], id)
		}
	}
	return nil
}

// readLink reads [id, from, slot, to, slot, type], or the object with those names.
func readLink(raw json.RawMessage) (id string, l link, ok bool) {
	var slot json.RawMessage
	if parts := list(raw); len(parts) >= 5 {
		id, l, slot = word(parts[0]), link{from: word(parts[1]), to: word(parts[3])}, parts[2]
	} else if f := object(raw); f != nil {
		id, l, slot = word(f["id"]), link{from: word(f["origin_id"]), to: word(f["target_id"])}, f["origin_slot"]
	} else {
		return "", link{}, false // null, where a link was deleted
	}
	if json.Unmarshal(slot, &l.slot) != nil || l.slot < 0 {
		return "", link{}, false
	}
	return id, l, id != ""
}

func readNode(f fields) *node {
	n := &node{id: word(f["id"]), kind: word(f["type"]), title: word(f["title"]), mode: word(f["mode"]),
		inputs: slots(f["inputs"]), outputs: slots(f["outputs"]), values: f["widgets_values"], named: object(f["widgets_values_named"])}
	if same, ok := renamed[n.kind]; ok {
		n.kind = same
	}
	if values := list(n.values); len(values) > 0 && (n.kind == getNode || n.kind == setNode) {
		n.value = word(values[0])
	}
	properties := object(f["properties"])
	n.alias = word(properties["Node name for S&R"])
	n.replaces = word(properties["Run widget replace on values"]) == "true"
	for _, raw := range list(properties["proxyWidgets"]) {
		if p := list(raw); len(p) >= 2 {
			n.proxies = append(n.proxies, [2]string{word(p[0]), word(p[1])})
		}
	}
	return n
}

// renamed are classes of ComfyUI's that have another name now; the editor replaces them when it opens a file.
var renamed = map[string]string{
	"T2IAdapterLoader":         "ControlNetLoader",
	"ConditioningAverage ":     "ConditioningAverage",
	"SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
	"Load3DAnimation":          "Load3D",
	"Preview3DAnimation":       "Preview3D",
}

func slots(raw json.RawMessage) (all []slot) {
	for _, raw := range list(raw) {
		f := object(raw)
		all = append(all, slot{name: word(f["name"]), kind: word(f["type"]), link: word(f["link"]), widget: object(f["widget"]) != nil})
	}
	return all
}

func ports(raw json.RawMessage) (all []port) {
	for _, raw := range list(raw) {
		f := object(raw)
		p := port{name: word(f["name"]), kind: word(f["type"])}
		for _, id := range list(f["linkIds"]) {
			p.links = append(p.links, word(id))
		}
		all = append(all, p)
	}
	return all
}

// object and list are nil where the value is something else.
func object(raw json.RawMessage) (f fields) {
	if len(raw) > 0 && raw[0] == '{' && json.Unmarshal(raw, &f) != nil {
		return nil
	}
	return f
}

func list(raw json.RawMessage) (all []json.RawMessage) {
	if len(raw) > 0 && raw[0] == '[' && json.Unmarshal(raw, &all) != nil {
		return nil
	}
	return all
}

// word is a string, or a number or another literal as it is written: IDs are either. Null is "".
func word(raw json.RawMessage) string {
	if len(raw) == 0 || raw[0] == '{' || raw[0] == '[' || string(raw) == "null" {
		return ""
	}
	var s string
	if raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// quote writes a string as JSON.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can always be written
	return strings.TrimSuffix(b.String(), "\n")
}

// wrap keeps a value that is a list from being read as a link; ComfyUI unwraps it.
func wrap(value json.RawMessage) json.RawMessage {
	if len(value) > 0 && value[0] == '[' {
		return append(append(json.RawMessage(`{"__value__":`), value...), '}')
	}
	return value
}

// clip shortens what stands in a file so that an error stays readable.
func clip(s string) string {
	const most = 60
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i] + "..."
		}
	}
	return s
}
