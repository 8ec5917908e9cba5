package comfy

import "fmt"

// howToExport is what a person must do in ComfyUI to get the format that can be run.
const howToExport = `export it with "Workflow > Export (API)" in ComfyUI's menu and send that file ` +
	`(in older versions: turn on "Enable Dev mode Options" in the settings, then "Save (API Format)")`

// otherFormat tells the documents that people send instead of a graph, and says what to send.
func otherFormat(raw []byte, top []member) error {
	values := make(map[string][]byte, len(top))
	for _, m := range top {
		switch key := m.key(); key {
		case "nodes", "links", "last_node_id", "version", "prompt", "workflow", "output", "input":
			values[key] = m.value
		}
	}
	is := func(key string, first byte) bool { v := values[key]; return len(v) > 0 && v[0] == first }
	// The editor's links are a list, or an object in its newer schema; the ID came in 2025.
	if is("nodes", '[') && (is("links", '[') || is("links", '{') || values["last_node_id"] != nil || values["version"] != nil) {
		return &GraphError{UI: true, File: raw, Message: "This is the editor's own save format (nodes and links), which has to be converted into the API format: " +
			"POST /submit_workflow of comfyd does that; elsewhere, " + howToExport + "."}
	}
	for _, key := range []string{"prompt", "workflow", "output", "input"} {
		if !is(key, '{') || isNode(values[key]) {
			continue
		}
		what := fmt.Sprintf("The graph seems to stand under the key %q", key)
		if key == "prompt" {
			what = `This is the body of ComfyUI's own POST /prompt, with the graph under the key "prompt"`
		}
		return &GraphError{Message: fmt.Sprintf("%s: send what stands under %q as the workflow, without the wrapper.", what, key)}
	}
	return nil
}

func isNode(object []byte) bool {
	for _, m := range members(object) {
		if m.key() == "class_type" {
			return true
		}
	}
	return false
}
