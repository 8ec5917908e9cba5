package comfyhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// coreSocketClass is ComfyUI's own node that sends its images by socket; each comes with one tick of its progress bar.
const coreSocketClass = "SaveImageWebsocket"

// socketClass tells the nodes whose images are on the socket and nowhere else: SaveImageWebsocket,
// ETN_SendImageWebSocket and those named like them. A sampler's previews come the same way.
func socketClass(class string) bool { return strings.Contains(strings.ToLower(class), "websocket") }

// frames keeps the images that came by socket.
type frames struct {
	files map[string][]backend.File
	ticks map[string]*ticks
	// gap says that some may have been missed.
	gap bool
}

// ticks follow a node's progress bar, which shows how many frames there are.
type ticks struct {
	count       int
	first, last float64
	max         float64
}

func newFrames() *frames {
	return &frames{files: map[string][]backend.File{}, ticks: map[string]*ticks{}}
}

func (f *frames) tick(n *note) {
	if n.Node == nil {
		return
	}
	t := f.ticks[*n.Node]
	if t == nil {
		t = &ticks{first: n.Value}
		f.ticks[*n.Node] = t
	}
	t.count++
	t.last, t.max = n.Value, n.Max
}

// store keeps a frame at once: it is handed out only once.
func (f *frames) store(ctx context.Context, rec backend.Recorder, fr frame) error {
	blob, err := rec.Store(ctx, bytes.NewReader(fr.data))
	if err != nil {
		return &backend.Error{Code: comfy.Storage, NodeID: fr.node, Ran: true, Message: "an image that node " + fr.node + " sent could not be stored", Cause: err}
	}
	name := fmt.Sprintf("node_%s_%05d%s", unsafeIn.ReplaceAllString(fr.node, "_"), len(f.files[fr.node])+1, fr.ext)
	f.files[fr.node] = append(f.files[fr.node], backend.File{NodeID: fr.node, Key: "images", Filename: name, Folder: "output", Blob: &blob})
	return nil
}

// complete tells whether all frames of a core node are here.
func (f *frames) complete(node string) bool {
	t := f.ticks[node]
	if t == nil {
		return !f.gap // it made no image, or never ran
	}
	if t.count != len(f.files[node]) {
		return false
	}
	return !f.gap || (t.first == 0 && t.last+1 == t.max && float64(t.count) == t.max)
}

// finish makes the outcome of a prompt that the history has.
func (r *run) finish(ctx context.Context, e *historyEntry) (*backend.Outcome, error) {
	if e.Status.Str != "success" && (e.Status.Str != "" || e.message("execution_success") == nil) {
		err := failed(e)
		err.Ran = true
		return nil, err
	}
	if err := r.lastEvents(ctx); err != nil {
		return nil, r.left(ctx, err)
	}
	if r.blocked != nil {
		err := nodeFailed(r.blocked)
		err.Ran = true
		return nil, err
	}
	files, texts, err := r.collect(e)
	if err != nil {
		return nil, err
	}
	out := &backend.Outcome{Handle: r.h, Files: files, Texts: texts, Cached: r.plan.allCached(e.cached())}
	out.StartedAt, out.EndedAt = e.times()
	out.Handle.From, out.Handle.To = out.StartedAt, out.EndedAt
	_, out.GPU = r.s.known()
	for id := range r.plan.nodes {
		r.track.finish(id)
	}
	r.track.place(-1)
	r.track.current, r.track.step, r.track.steps, r.track.dirty = "", 0, 0, true
	r.tell()
	return out, nil
}

// lastEvents waits for what the socket still holds when a look at the history was quicker: long where it is frames,
// else a moment.
func (r *run) lastEvents(ctx context.Context) error {
	limit, more := r.s.t.frames, r.started || !r.frames.gap
	if len(r.plan.sockets) == 0 {
		limit, more = r.s.t.pollFirst, r.started && r.linked
	}
	if r.over || !more { // as on a socket that opened after the end
		return nil
	}
	wait := time.NewTimer(limit)
	defer wait.Stop()
	for {
		select {
		case e, ok := <-r.sock.events:
			if !ok {
				return detached(ctx)
			}
			err := r.event(ctx, e)
			if err != nil || r.over || e.kind == "down" {
				return err
			}
		case <-wait.C:
			r.frames.gap = true
			return nil
		case <-ctx.Done():
			return detached(ctx)
		}
	}
}

// collect reads every list of every node's outputs, whatever its name: entries with a filename are files, texts are
// texts, and those that came by socket are matched with the frames. An entry of any other kind is kept as a text, in
// JSON, because nothing that a node shows is dropped; only the flags beside a list of files ("animated": [true]) are.
func (r *run) collect(e *historyEntry) ([]backend.File, []backend.Text, error) {
	var files []backend.File
	var texts []backend.Text
	nodes := map[string]bool{}
	for id := range e.Outputs {
		nodes[id] = true
	}
	for id := range r.plan.sockets {
		nodes[id] = true
	}
	for _, id := range slices.SortedFunc(maps.Keys(nodes), comfy.CompareIDs) {
		n := nodeOutputs{id: id, seen: map[[3]string]bool{}}
		n.read(e.Outputs[id])
		files, texts = append(files, n.files...), append(texts, n.texts...)
		frames := r.frames.files[id]
		lost := len(frames) != n.bySocket
		if r.plan.sockets[id] && n.bySocket == 0 {
			if node := r.p.Graph.Nodes[id]; node.ClassType == coreSocketClass {
				lost = !r.frames.complete(id)
			} else {
				lost = r.frames.gap
			}
		}
		if lost {
			return nil, nil, &backend.Error{Code: comfy.OutputLost, NodeID: id, Ran: true,
				Message: "the images of node " + id + " were sent only once, and not all of them arrived; a node that saves files does not lose them"}
		}
		files = append(files, frames...)
	}
	return files, texts, nil
}

// nodeOutputs are the outputs of one node.
type nodeOutputs struct {
	id       string
	files    []backend.File
	texts    []backend.Text
	bySocket int
	seen     map[[3]string]bool
}

func (n *nodeOutputs) read(raw json.RawMessage) {
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

func (n *nodeOutputs) item(key string, raw json.RawMessage) {
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
			n.files = append(n.files, backend.File{NodeID: n.id, Key: key, Filename: f.Filename, Subfolder: f.Subfolder, Folder: f.Type})
		}
	case isObject && f.Source == "websocket":
		n.bySocket++
	case key == "animated" && (string(raw) == "true" || string(raw) == "false"), string(raw) == "null":
	default:
		n.text(raw)
	}
}

func (n *nodeOutputs) text(raw json.RawMessage) {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		text = string(raw)
	}
	n.texts = append(n.texts, backend.Text{NodeID: n.id, Text: text})
}
