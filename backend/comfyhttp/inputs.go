package comfyhttp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"path"
	"regexp"
	"strings"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// inputRoot is the folder below ComfyUI's input folder in which all jobs' files lie, each job's in its own.
const inputRoot = "comfyd"

// tag is an input that no node declares. ComfyUI does not hand it to the node but counts it in its cache key: with the
// prompt's ID in it, a node that saves does so for every prompt, and never answers with a file of an earlier one that
// may be gone. Everything before it stays cached.
const tag = "_comfyd"

var (
	safeJob  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	unsafeIn = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
)

// jobFolder is where a job's inputs lie. A workflow ID that another team chose may hold anything.
func jobFolder(job string) string {
	if !safeJob.MatchString(job) {
		sum := sha256.Sum256([]byte(job))
		job = hex.EncodeToString(sum[:16])
	}
	return inputRoot + "/" + job
}

// inputPath names a file by its content and its job, so that no two jobs and no two files of one ever meet. It ends as
// the client named it, because nodes go by the extension.
func inputPath(job string, in backend.Input) string {
	base := unsafeIn.ReplaceAllString(path.Base(strings.ReplaceAll(in.Name, `\`, "/")), "_")
	if len(base) > 80 {
		base = base[len(base)-80:]
	}
	return jobFolder(job) + "/" + in.SHA256[:min(12, len(in.SHA256))] + "_" + base
}

// upload streams an input to the server and returns the path under which ComfyUI has put it.
func (s *server) upload(ctx context.Context, at string, in backend.Input) (string, error) {
	body, err := in.Open(ctx)
	if err != nil {
		return "", &backend.Error{Code: comfy.Storage, Message: fmt.Sprintf("the input %q cannot be read from the store", in.Name), Cause: err}
	}
	defer body.Close()
	sum := &sumReader{r: body, sum: sha256.New()}
	got, err := s.put(ctx, RemotePath{Folder: "input", Subfolder: path.Dir(at), Filename: path.Base(at)}, sum, in.Size)
	if sum.err != nil {
		return "", &backend.Error{Code: comfy.Storage, Message: fmt.Sprintf("the input %q cannot be read from the store", in.Name), Cause: sum.err}
	}
	if err != nil {
		var ce *callError
		if errors.As(err, &ce) && ce.status == http.StatusRequestEntityTooLarge {
			return "", backend.Errorf(comfy.InvalidWorkflow, "the input %q (%d bytes) is larger than this ComfyUI takes; raise its --max-upload-size", in.Name, in.Size)
		}
		if ce != nil && ce.refused {
			s.down(ctx, err) // until the next probe, nobody else need try
		}
		return "", &backend.Error{Code: comfy.BackendUnavailable, Message: fmt.Sprintf("the input %q could not be sent to ComfyUI", in.Name), Cause: err}
	}
	if found := hex.EncodeToString(sum.sum.Sum(nil)); sum.n != in.Size || found != in.SHA256 {
		return "", backend.Errorf(comfy.Storage, "the input %q is not what it was when it was sent: the store gave other bytes", in.Name)
	}
	if got.Folder != "input" || got.Filename == "" {
		return "", backend.Errorf(comfy.BackendUnavailable, "ComfyUI did not put the input %q where it was told to", in.Name)
	}
	return path.Join(got.Subfolder, got.Filename), nil
}

// sumReader hashes what passes, and keeps the reader's own error apart from those of the connection.
type sumReader struct {
	r   io.Reader
	sum hash.Hash
	n   int64
	err error
}

func (r *sumReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.sum.Write(p[:n])
	r.n += int64(n)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// put writes a file through POST /upload/image, which takes any file, and returns what ComfyUI says it has written.
func (s *server) put(ctx context.Context, to RemotePath, content io.Reader, size int64) (RemotePath, error) {
	var head bytes.Buffer
	form := multipart.NewWriter(&head)
	for _, field := range [][2]string{{"type", to.Folder}, {"subfolder", to.Subfolder}, {"overwrite", "true"}} {
		if err := form.WriteField(field[0], field[1]); err != nil {
			return RemotePath{}, err
		}
	}
	header := textproto.MIMEHeader{}
	header.Set("Content-Disposition", `form-data; name="image"; filename="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(to.Filename)+`"`)
	header.Set("Content-Type", "application/octet-stream")
	if _, err := form.CreatePart(header); err != nil {
		return RemotePath{}, err
	}
	tail := "\r\n--" + form.Boundary() + "--\r\n"

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := newIdleTimer(s.t.idle, cancel)
	defer idle.stop()
	body := io.MultiReader(&head, touching{io.LimitReader(content, size+1), idle}, strings.NewReader(tail))
	res, err := s.request(ctx, http.MethodPost, "/upload/image", nil, body, int64(head.Len())+size+int64(len(tail)), form.FormDataContentType())
	if err != nil {
		return RemotePath{}, idle.explain(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return RemotePath{}, statusError(res)
	}
	var answer struct {
		Name      string `json:"name"`
		Subfolder string `json:"subfolder"`
		Type      string `json:"type"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&answer); err != nil {
		return RemotePath{}, &callError{status: http.StatusOK, why: "the answer to /upload/image is not what a ComfyUI sends", err: err}
	}
	return RemotePath{Folder: answer.Type, Subfolder: answer.Subfolder, Filename: answer.Name}, nil
}

// promptBody makes the body of POST /prompt. Nothing in it is the client's but the graph and the PNG info: other fields can
// end ComfyUI's process.
func promptBody(p *backend.Prompt, pl *plan, paths map[string]string) ([]byte, error) {
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
	graph := p.Graph.Rewrite(
		func(node, input string, value json.RawMessage) json.RawMessage {
			if links[[2]string{node, input}] {
				return nil // ["2", 0] is a node, also where a file is called "2"
			}
			if pl.isText != nil && pl.isText(p.Graph.Nodes[node].ClassType, input) {
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
			if pl.outputs[node] || p.Fresh {
				return map[string]json.RawMessage{tag: id}
			}
			return nil
		})
	var b bytes.Buffer
	b.WriteString(`{"prompt":`)
	b.Write(graph)
	b.WriteString(`,"prompt_id":`)
	b.Write(id)
	b.WriteString(`,"client_id":`) // always: without one ComfyUI 0.3.75 answers a cached prompt with no outputs
	b.Write(id)
	b.WriteString(`,"extra_data":{`)
	if info := bytes.TrimSpace(p.ExtraPNGInfo); len(info) > 0 && !bytes.Equal(info, []byte("null")) {
		if info[0] != '{' || !json.Valid(info) {
			return nil, backend.Errorf(comfy.InvalidWorkflow, "extra_pnginfo must be a JSON object")
		}
		b.WriteString(`"extra_pnginfo":`)
		b.Write(info)
	}
	b.WriteString(`}}`)
	return b.Bytes(), nil
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
