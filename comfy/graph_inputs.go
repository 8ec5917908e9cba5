package comfy

import (
	"fmt"
	"path"
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

// HiddenLink finds a link in an input's wrapper {"__value__": ...}, with which the editor marks a list that is none. Of an
// input that its class declares ComfyUI takes the wrapping off, and then follows the link, although nobody has checked
// it: to a node that is not there, or round in a circle (execution.py, validate_inputs; seen on 0.3.75). The value is
// compact JSON of a [Graph].
func HiddenLink(value []byte) (Link, bool) {
	if len(value) == 0 || value[0] != '{' {
		return Link{}, false
	}
	for _, m := range members(value) {
		if m.key() == "__value__" {
			return parseLink(m.value)
		}
	}
	return Link{}, false
}

// prefixFault is what is wrong with the names that a node of ComfyUI's own would give its files; nil for nothing. What
// other packs' nodes do with an input of that name they know alone.
func prefixFault(id, class, name string, value []byte) *InputError {
	if name != "filename_prefix" || value[0] != '"' || !strings.HasPrefix(class, "Save") {
		return nil
	}
	prefix := text(value)
	// ComfyUI's own way to the name (folder_paths.py, get_save_image_path). A backslash is a folder on Windows alone.
	if strings.Contains(prefix, `\`) || Served(path.Base(path.Clean(prefix))) {
		return nil
	}
	return &InputError{
		Type: "filename_not_served",
		Message: fmt.Sprintf("Input %s of node %s (%s) makes files that ComfyUI does not hand out: leave out line breaks and two dots in a row",
			quote(name), quote(id), clip(class)),
		Details: clip(name), ExtraInfo: map[string]any{"input_name": clip(name), "received_value": clip(prefix)},
	}
}

// Served tells whether ComfyUI hands out a file of that name, the folder aside: its /view refuses two dots in a row
// wherever they stand, and breaks off where the name would break its header (server.py, view_image; seen on 0.3.75).
func Served(filename string) bool {
	return !strings.Contains(filename, "..") && !strings.ContainsAny(filename, "\r\n")
}
