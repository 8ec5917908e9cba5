// Package catalog knows what a ComfyUI can run: it reads /object_info, refuses the graphs that ComfyUI's own validation
// would refuse, says what is allowed instead, and keeps workflows inside the folders that are theirs. The directory in
// it tells the API what the workers' backends can run.
package catalog

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/editor"
)

// Catalog is the node classes of one ComfyUI. It never changes, and is safe for concurrent use.
type Catalog struct {
	classes map[string]*class
	names   []string // sorted
	// checksCombo says that this ComfyUI compares the value of an input of type "COMBO" with its options. Old ones do
	// so only where the list itself is the type.
	checksCombo bool
}

// class is one node class.
type class struct {
	name   string
	output bool
	inputs map[string]*input // required and optional; ComfyUI ignores the rest
	order  []string          // their names, sorted
	// returns are the types of the outputs, "" where one is no plain type name.
	returns []string
	// plain says that the class is of ComfyUI's own kind whose checks we know. Classes from elsewhere may switch checks
	// off with a VALIDATE_INPUTS of their own or with types that equal everything, and /object_info does not show it.
	plain bool
	// fixed says that the list of outputs is what it shows; those from elsewhere may take any number.
	fixed bool
	drawn *editor.Class // as the editor draws it; nil where that cannot be read
	// raw is the class as it came.
	raw json.RawMessage
}

// Parse reads the answer to GET /object_info, the older form (a list of options stands as the type) and the newer
// ("COMBO" with options). What it does not understand it does not check.
func Parse(objectInfo []byte) (*Catalog, error) {
	var infos map[string]json.RawMessage
	if err := json.Unmarshal(Sanitize(objectInfo), &infos); err != nil {
		return nil, fmt.Errorf("reading ComfyUI's /object_info: %w", err)
	}
	if len(infos) == 0 {
		return nil, fmt.Errorf("reading ComfyUI's /object_info: it lists no node class")
	}
	c := &Catalog{classes: make(map[string]*class, len(infos)), names: make([]string, 0, len(infos))}
	for name, raw := range infos {
		cl, aliases := parseClass(name, raw)
		c.classes[name] = cl
		c.names = append(c.names, name)
		// ComfyUI began to compare COMBO values in December 2025 (pull request 11345) and to list search_aliases in
		// January 2026 (12010): where the second is seen, the first holds.
		c.checksCombo = c.checksCombo || aliases
	}
	slices.Sort(c.names)
	return c, nil
}

// IsText tells whether a class declares an input as free text (STRING) rather than as a choice or a file.
func (c *Catalog) IsText(class, input string) bool {
	cl := c.classes[class]
	return cl != nil && cl.inputs[input] != nil && cl.inputs[input].kind == "STRING"
}

// Has says whether this ComfyUI knows a node class.
func (c *Catalog) Has(class string) bool { return c.classes[class] != nil }

// OutputNodes lists the graph's output nodes, in natural order: those that ComfyUI runs, with all that they depend on.
func (c *Catalog) OutputNodes(g *comfy.Graph) []string {
	var ids []string
	for _, id := range g.IDs() {
		if c.isOutput(g.Nodes[id].ClassType) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (c *Catalog) isOutput(name string) bool {
	cl := c.classes[name]
	return cl != nil && cl.output
}

func parseClass(name string, raw json.RawMessage) (cl *class, aliases bool) {
	cl = &class{name: name, inputs: map[string]*input{}, raw: raw}
	var info struct {
		Input         map[string]json.RawMessage `json:"input"`
		Output        []json.RawMessage          `json:"output"`
		OutputNode    bool                       `json:"output_node"`
		PythonModule  string                     `json:"python_module"`
		SearchAliases json.RawMessage            `json:"search_aliases"`
	}
	if json.Unmarshal(raw, &info) != nil {
		return cl, false
	}
	cl.output = info.OutputNode
	cl.drawn = editor.ParseClass(name, raw)
	cl.plain = info.PythonModule == "nodes" || strings.HasPrefix(info.PythonModule, "comfy_extras.")
	cl.fixed = cl.plain || strings.HasPrefix(info.PythonModule, "comfy_api_nodes.")
	for _, out := range info.Output {
		var t string
		if json.Unmarshal(out, &t) != nil {
			t = ""
		}
		cl.returns = append(cl.returns, t)
	}
	for _, category := range []string{"optional", "required"} { // required wins, as in ComfyUI's get_input_info
		var specs map[string]json.RawMessage
		if json.Unmarshal(info.Input[category], &specs) != nil {
			continue
		}
		for name, spec := range specs {
			cl.inputs[name] = parseInput(cl, name, spec, category == "required")
		}
	}
	cl.order = slices.Sorted(maps.Keys(cl.inputs))
	return cl, info.SearchAliases != nil
}
