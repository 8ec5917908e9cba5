package comfy

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Readable checks JSON that ComfyUI's Python is to read beside a graph, such as extra_pnginfo, as [ParseGraph] checks
// graphs, and returns it without white space: valid UTF-8, no key twice, no number that Python refuses or reads as
// infinite, at most [MaxDepth] levels. One level too many ends ComfyUI's execution thread: it copies what is in its
// queue by recursion (execution.py, PromptQueue.get; seen on 0.3.75 at 900 levels).
func Readable(data []byte) ([]byte, error) {
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("it is not valid UTF-8: %s", invalidAt(data))
	}
	return compact(data)
}

// inputFault is what is wrong with an input of whatever node; nil for nothing.
func inputFault(id, class, name string, value []byte) *InputError {
	switch {
	case value[0] == '{':
		for _, m := range members(value) {
			if m.key() != "__value__" {
				continue
			}
			// ComfyUI checks it as a value, takes the wrapping off, and then follows it as a link that nobody has checked
			// (execution.py, validate_inputs): to a node that is not there, or round in a circle.
			if l, ok := parseLink(m.value); ok {
				return &InputError{
					Type: "bad_linked_input",
					Message: fmt.Sprintf("Input %s of node %s (%s) hides a link to node %s in __value__: write the link itself",
						quote(name), quote(id), clip(class), quote(l.From)),
					Details: clip(name), ExtraInfo: map[string]any{"input_name": clip(name), "linked_node": clip(l.From)},
				}
			}
		}
	case name == "filename_prefix" && value[0] == '"':
		prefix := text(value)
		base := prefix[strings.LastIndexByte(prefix, '/')+1:]
		if Served(base) {
			break
		}
		return &InputError{
			Type: "filename_not_served",
			Message: fmt.Sprintf("Input %s of node %s (%s) makes files that ComfyUI does not hand out: leave out line breaks and two dots in a row",
				quote(name), quote(id), clip(class)),
			Details: clip(name), ExtraInfo: map[string]any{"input_name": clip(name), "received_value": clip(prefix)},
		}
	}
	return nil
}

// Served tells whether ComfyUI hands out a file of that name, the folder aside: its /view refuses two dots in a row
// wherever they stand, and breaks off where the name would break its header (server.py, view_image; seen on 0.3.75).
func Served(filename string) bool {
	return !strings.Contains(filename, "..") && !strings.ContainsAny(filename, "\r\n")
}
