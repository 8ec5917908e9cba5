package catalog

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

// Reserved is the folder inside ComfyUI's input folder where comfyd keeps the files of jobs, of all tenants.
const Reserved = "comfyd"

// reach is where a value of an input may lead.
type reach int

const (
	reachNone   reach = iota
	reachInput        // a file in ComfyUI's input folder
	reachFolder       // a folder in it
	reachOutput       // a folder in the output folder, joined without a check (comfy_extras/nodes_dataset.py)
)

// readers are the inputs of ComfyUI's own classes that name files or folders, whatever their declared type.
var readers = map[[2]string]reach{
	{"LoadImage", "image"}:                          reachInput,
	{"LoadImageMask", "image"}:                      reachInput,
	{"LoadImageOutput", "image"}:                    reachInput,
	{"LoadVideo", "file"}:                           reachInput,
	{"LoadAudio", "audio"}:                          reachInput,
	{"LoadLatent", "latent"}:                        reachInput,
	{"Load3D", "model_file"}:                        reachInput,
	{"LoadImageDataSetFromFolder", "folder"}:        reachFolder,
	{"LoadImageTextDataSetFromFolder", "folder"}:    reachFolder,
	{"SaveImageDataSetToFolder", "folder_name"}:     reachOutput,
	{"SaveImageTextDataSetToFolder", "folder_name"}: reachOutput,
	{"SaveTrainingDataset", "folder_name"}:          reachOutput,
	{"LoadTrainingDataset", "folder_name"}:          reachOutput,
}

// fileInputs are names under which classes that nobody knows are likely to take a file.
var fileInputs = map[string]bool{
	"image": true, "mask": true, "video": true, "audio": true, "file": true, "latent": true, "model_file": true,
}

// PathErrors reports the values that lead out of what a job may read: ComfyUI's input folder and the job's own files.
// Those are absolute paths, "..", the marks [output] and [temp] with which ComfyUI names its other folders, and the
// folder [Reserved] where the files of other jobs lie. It examines what names a file: choices from a list that are not
// in the list, and what ComfyUI's own loaders take. Texts, such as prompts, are never examined.
//
// c is nil where nobody knows the classes; then inputs that are named like files are examined too. inputs are the files
// that come with the job; they follow the same rules.
func PathErrors(g *comfy.Graph, c *Catalog, inputs []string) comfy.NodeErrors {
	files := make(map[string]bool, len(inputs))
	for _, name := range inputs {
		files[name] = true
	}
	linked := map[[2]string]bool{}
	for _, l := range g.Links() {
		linked[[2]string{l.Node, l.Input}] = true
	}
	errs := comfy.NodeErrors{}
	for _, id := range g.IDs() {
		n := g.Nodes[id]
		var cl *class
		if c != nil {
			cl = c.classes[n.ClassType]
		}
		for name, raw := range n.Inputs {
			to, in := where(cl, n.ClassType, name)
			if to == reachNone {
				continue
			}
			if linked[[2]string{id, name}] {
				if to == reachOutput || to == reachFolder {
					add(errs, id, n, name, raw, "is linked to another node, so that nobody can tell what it will name; give it as a plain text")
				}
				continue
			}
			for _, text := range texts(decodeValue(raw)) {
				if why := to.outside(text, in, files); why != "" {
					add(errs, id, n, name, raw, why)
					break
				}
			}
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errs
}

func where(cl *class, className, name string) (reach, *input) {
	to := readers[[2]string{className, name}]
	if cl == nil {
		if to == reachNone && fileInputs[name] {
			to = reachInput
		}
		return to, nil
	}
	in := cl.inputs[name]
	if in != nil && to == reachNone && (in.combo || in.upload != uploadNone) {
		to = reachInput
	}
	return to, in
}

// outside says why a text leads out, "" where it does not.
func (to reach) outside(text string, in *input, files map[string]bool) string {
	bare, folder := annotation(text)
	if to == reachOutput {
		bare, folder = text, ""
	}
	listed := in != nil && in.texts[text]
	uploads := in == nil || in.upload != uploadNone || to == reachFolder
	steps := strings.FieldsFunc(bare, func(r rune) bool { return r == '/' || r == '\\' })
	up, root := false, ""
	for _, s := range steps {
		s = strings.TrimRight(s, " ")
		up = up || s == ".."
		if root == "" && s != "." {
			root = strings.TrimRight(s, ". ") // Windows drops both
		}
	}
	switch {
	case to != reachOutput && strings.EqualFold(root, Reserved) && !files[bare] && (uploads || !listed):
		return "names the folder " + Reserved + "/, which is where the files of jobs lie"
	case listed:
		return ""
	case folder == "output" || folder == "temp":
		return fmt.Sprintf("names a file in ComfyUI's %s folder, where the files of other jobs lie; send the file with the job", folder)
	case up:
		return `leads out of its folder by ".."`
	case strings.HasPrefix(bare, "/") || strings.HasPrefix(bare, `\`) || drive(bare):
		return "is an absolute path; only names inside ComfyUI's own folder are allowed"
	case strings.ContainsRune(bare, 0):
		return "holds a NUL"
	}
	return ""
}

func drive(p string) bool {
	return len(p) >= 2 && p[1] == ':' && (p[0] >= 'a' && p[0] <= 'z' || p[0] >= 'A' && p[0] <= 'Z')
}

// annotation takes off the mark at a name's end by which ComfyUI chooses the folder (annotated_filepath in its
// folder_paths.py, which drops one more character before the mark, whatever that is). A mark before the mark counts too.
func annotation(name string) (bare, folder string) {
	for {
		cut := ""
		for _, f := range []string{"output", "input", "temp"} {
			if strings.HasSuffix(name, "["+f+"]") {
				cut = f
			}
		}
		if cut == "" {
			return name, folder
		}
		name = name[:max(0, len(name)-len(cut)-3)]
		if folder == "" || folder == "input" {
			folder = cut
		}
	}
}

// texts are the texts in a value, nested ones too.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var all []string
		for _, e := range v {
			all = append(all, texts(e)...)
		}
		return all
	case map[string]any:
		var all []string
		for _, e := range v {
			all = append(all, texts(e)...)
		}
		return all
	}
	return nil
}

func add(errs comfy.NodeErrors, id string, n *comfy.Node, name string, raw json.RawMessage, why string) {
	e, known := errs[id]
	if !known && len(errs) >= maxNodes {
		return
	}
	e.ClassType, e.DependentOutputs = n.ClassType, []string{}
	v := decodeValue(raw)
	e.Errors = append(e.Errors, comfy.InputError{
		Type:      "path_not_allowed",
		Message:   fmt.Sprintf("Input %s of node %s (%s), %s, %s", quote(name), quote(id), shorten(n.ClassType), show(v), why),
		Details:   name,
		ExtraInfo: extra("input_name", name, "received_value", received(v)),
	})
	errs[id] = e
}
