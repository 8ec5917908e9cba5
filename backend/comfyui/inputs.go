package comfyui

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// InputRoot is the folder below ComfyUI's input folder in which all jobs' files lie, each job's in its own.
const InputRoot = "comfyd"

// tag is an input that no node declares. ComfyUI does not hand it to the node but counts it in its cache key: with the
// prompt's ID in it, a node that saves does so for every prompt, and never answers with a file of an earlier one that
// may be gone. Everything before it stays cached.
const tag = "_comfyd"

// askPreviews asks for the cheap kind: for each step a product with a small matrix, and a JPEG of at most 512 pixels a
// side.
const askPreviews = `"preview_method":"auto"`

var (
	safeJob    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	unsafeName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
)

// jobFolder is where a job's inputs lie. A workflow ID that another team chose may hold anything.
func jobFolder(job string) string {
	if !safeJob.MatchString(job) {
		sum := sha256.Sum256([]byte(job))
		job = hex.EncodeToString(sum[:16])
	}
	return InputRoot + "/" + job
}

// InputPath names a file by its content and its job, so that no two jobs and no two files of one ever meet. It ends as
// the client named it, because nodes go by the extension.
func InputPath(job string, in backend.Input) string {
	base := unsafeName.ReplaceAllString(path.Base(strings.ReplaceAll(in.Name, `\`, "/")), "_")
	if len(base) > 80 {
		base = base[len(base)-80:]
	}
	return jobFolder(job) + "/" + in.SHA256[:min(12, len(in.SHA256))] + "_" + base
}

// OwnNames is err with the files in its text named as the client has named them. Others may hold err: it stays as it is.
func OwnNames(p *backend.Prompt, err error) error {
	var e *backend.Error
	if len(p.Inputs) == 0 || !errors.As(err, &e) {
		return err
	}
	var names []string
	for _, in := range p.Inputs {
		there := InputPath(p.JobID, in)
		names = append(names, there, in.Name, path.Base(there), in.Name)
	}
	replacer := strings.NewReplacer(names...)
	own := *e
	own.Message, own.NodeErrors = replacer.Replace(e.Message), maps.Clone(e.NodeErrors)
	for id, node := range own.NodeErrors {
		node.Errors = slices.Clone(node.Errors)
		for i, reason := range node.Errors {
			node.Errors[i].Message, node.Errors[i].Details = replacer.Replace(reason.Message), replacer.Replace(reason.Details)
		}
		own.NodeErrors[id] = node
	}
	return &own
}

// Body makes the body of POST /prompt. Nothing in it is the client's but the graph and the PNG info: other fields can
// end ComfyUI's process. A ComfyUI that knows no previews by prompt pays no heed to being asked for them.
func Body(p *backend.Prompt, pl *Plan, paths map[string]string, previews bool) ([]byte, error) {
	id, err := json.Marshal(p.ID)
	if err != nil {
		return nil, err
	}
	graph, err := Graph(p, pl, paths)
	if err != nil {
		return nil, err
	}
	info, err := PNGInfo(p)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(`{"prompt":`)
	b.Write(graph)
	b.WriteString(`,"prompt_id":`)
	b.Write(id)
	b.WriteString(`,"client_id":`) // always: without one ComfyUI 0.3.75 answers a cached prompt with no outputs
	b.Write(id)
	b.WriteString(`,"extra_data":{`)
	if previews {
		b.WriteString(askPreviews)
	}
	if info != nil {
		if previews {
			b.WriteByte(',')
		}
		b.WriteString(`"extra_pnginfo":`)
		b.Write(info)
	}
	b.WriteString(`}}`)
	return b.Bytes(), nil
}

// PNGInfo is what ComfyUI embeds into saved images, a JSON object; nil for nothing.
func PNGInfo(p *backend.Prompt) (json.RawMessage, error) {
	info := bytes.TrimSpace(p.ExtraPNGInfo)
	if len(info) == 0 || bytes.Equal(info, []byte("null")) {
		return nil, nil
	}
	if info[0] != '{' {
		return nil, backend.Errorf(comfy.InvalidWorkflow, "extra_pnginfo must be a JSON object")
	}
	readable, err := comfy.Readable(info) // a child's was looked at by nobody before
	if err != nil {
		return nil, backend.Errorf(comfy.InvalidWorkflow, "extra_pnginfo cannot be read by ComfyUI: %s", err)
	}
	return readable, nil
}

// Graph is the prompt's graph as it is sent: the names of the job's files replaced by their paths below ComfyUI's input
// folder, and the output nodes tagged.
func Graph(p *backend.Prompt, pl *Plan, paths map[string]string) (json.RawMessage, error) {
	id, err := json.Marshal(p.ID)
	if err != nil {
		return nil, err
	}
	links := map[[2]string]bool{}
	for _, l := range p.Graph.Links() {
		links[[2]string{l.Node, l.Input}] = true
	}
	// A prompt that reads like a file's name stays as it is. Some nodes take a path as text, so a name with an
	// extension counts there too, but never as the prefix of what is saved.
	inText := map[string]string{}
	for name, at := range paths {
		if path.Ext(name) != "" {
			inText[name] = at
		}
	}
	return p.Graph.Rewrite(
		func(node, input string, value json.RawMessage) json.RawMessage {
			if links[[2]string{node, input}] {
				return nil // ["2", 0] is a node, also where a file is called "2"
			}
			if pl.IsText != nil && pl.IsText(p.Graph.Nodes[node].ClassType, input) {
				if input == "filename_prefix" {
					return nil
				}
				return replaceNames(value, inText)
			}
			return replaceNames(value, paths)
		},
		func(node string) map[string]json.RawMessage {
			// The cache cannot be emptied without unloading the models too (main.py: unload_models defaults to
			// free_memory), and not for certain before the next prompt: a new key for every node does what is wanted.
			if pl.Outputs[node] || p.Fresh {
				return map[string]json.RawMessage{tag: id}
			}
			return nil
		}), nil
}

// replaceNames puts the path on the server where a value, or an element of a list, names one of the job's files. The
// mark "[input]", with which ComfyUI names its input folder, may follow and stays.
func replaceNames(value json.RawMessage, paths map[string]string) json.RawMessage {
	if len(value) == 0 || len(paths) == 0 {
		return value
	}
	switch value[0] {
	case '"':
		var text string
		if json.Unmarshal(value, &text) != nil {
			return value
		}
		name, mark := text, ""
		if bare, ok := strings.CutSuffix(text, " [input]"); ok {
			name, mark = bare, " [input]"
		}
		to, ok := paths[name]
		if !ok {
			to, ok = paths[text]
			mark = ""
		}
		if !ok {
			return value
		}
		out, err := json.Marshal(to + mark)
		if err != nil {
			return value
		}
		return out
	case '[':
		var list []json.RawMessage
		if json.Unmarshal(value, &list) != nil {
			return value
		}
		changed := false
		for i, item := range list {
			to := replaceNames(bytes.TrimSpace(item), paths)
			changed = changed || !bytes.Equal(to, item)
			list[i] = to
		}
		if !changed {
			return value
		}
		return append(append([]byte{'['}, bytes.Join(rawBytes(list), []byte{','})...), ']')
	case '{': // how the editor writes a list that is no link
		var wrapped map[string]json.RawMessage
		if json.Unmarshal(value, &wrapped) != nil || len(wrapped) != 1 || wrapped["__value__"] == nil {
			return value
		}
		inner := replaceNames(wrapped["__value__"], paths)
		return append(append([]byte(`{"__value__":`), inner...), '}')
	}
	return value
}

func rawBytes(list []json.RawMessage) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}
