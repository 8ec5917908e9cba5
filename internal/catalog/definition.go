package catalog

import (
	"bytes"
	"encoding/json"
	"path"
	"strings"
)

// definition is the class as /object_info has it, in the same order, without what tells which files people have sent: the
// lists of what lies in ComfyUI's input and output folders, and, in any other list, names of such files and of the folder
// where comfyd keeps those of jobs.
func (cl *class) definition() json.RawMessage {
	var out bytes.Buffer
	cl.copy(&out, cl.raw, nil)
	return out.Bytes()
}

// copy writes a value of the class that stands at the path.
func (cl *class) copy(out *bytes.Buffer, raw json.RawMessage, at []string) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	tok, err := dec.Token()
	open, nested := tok.(json.Delim)
	if err != nil || !nested {
		out.Write(raw)
		return
	}
	out.WriteString(open.String())
	if !cl.listsFiles(at) {
		cl.copyAll(out, dec, open, at)
	}
	out.WriteByte(byte(open) + 2) // its closing one, in ASCII
}

func (cl *class) copyAll(out *bytes.Buffer, dec *json.Decoder, open json.Delim, at []string) {
	first := true
	for i := 0; dec.More(); i++ {
		var key, value json.RawMessage
		name := indexName(i)
		if open == '{' {
			tok, err := dec.Token()
			if err != nil {
				return
			}
			name, _ = tok.(string)
			key, _ = json.Marshal(name)
		}
		if dec.Decode(&value) != nil {
			return
		}
		inside := append(at[:len(at):len(at)], name)
		if cl.namesFile(inside, value, open == '[') {
			continue
		}
		if !first {
			out.WriteByte(',')
		}
		first = false
		if key != nil {
			out.Write(append(key, ':'))
		}
		cl.copy(out, value, inside)
	}
}

// indexName tells the first two places of a list, the type and its options, from the rest.
func indexName(i int) string {
	switch i {
	case 0:
		return "0"
	case 1:
		return "1"
	}
	return ""
}

// input is what the class declares at a path below "input"; rest is the path inside it.
func (cl *class) at(path []string) (in *input, rest string) {
	if len(path) < 4 || path[0] != "input" {
		return nil, ""
	}
	return cl.inputs[path[2]], strings.Join(path[3:], ".")
}

// listsFiles tells whether the list at a path is one of the files in ComfyUI's folders.
func (cl *class) listsFiles(path []string) bool {
	in, rest := cl.at(path)
	return in != nil && cl.readsFiles(in) && (rest == "0" || rest == "1.options")
}

// namesFile tells whether a value is the name of such a file: the one that is chosen at first, or one of any list.
func (cl *class) namesFile(path []string, raw json.RawMessage, listed bool) bool {
	in, rest := cl.at(path)
	if in != nil && cl.readsFiles(in) && rest == "1.default" {
		return true
	}
	var text string
	if !listed || len(path) == 0 || path[0] != "input" && path[0] != "output" || json.Unmarshal(raw, &text) != nil {
		return false
	}
	return isOwnFile(text)
}

// readsFiles says that the input takes a file or folder of ComfyUI's input or output folder.
func (cl *class) readsFiles(in *input) bool {
	return in.upload != uploadNone || readers[[2]string{cl.name, in.name}] != reachNone
}

// isOwnFile says whether a text looks like a file that somebody has sent or made, or lies where comfyd keeps them.
func isOwnFile(name string) bool {
	name = strings.ToLower(strings.ReplaceAll(name, `\`, "/"))
	bare, _ := annotation(name)
	if bare == Reserved || strings.HasPrefix(bare, Reserved+"/") {
		return true
	}
	ending := path.Ext(bare)
	if ending == path.Base(bare) { // ".png" is a choice, no file
		return false
	}
	switch ending {
	case ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".exr", ".hdr", ".svg", ".psd",
		".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".mpg", ".mpeg",
		".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac",
		".latent", ".glb", ".gltf", ".obj", ".fbx", ".stl", ".ply", ".txt", ".csv", ".pdf", ".zip":
		return true
	}
	return false
}
