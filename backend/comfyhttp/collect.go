package comfyhttp

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/comfy"
)

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

func (f *frames) tick(n *comfyui.Note) {
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
	name := comfyui.FrameName(fr.node, len(f.files[fr.node])+1, fr.ext)
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
func (r *run) finish(ctx context.Context, e *comfyui.History) (*backend.Outcome, error) {
	if err := e.Failure(); err != nil {
		return nil, err
	}
	if err := r.lastEvents(ctx); err != nil {
		return nil, r.left(ctx, err)
	}
	if r.blocked != nil {
		err := comfyui.NodeFailed(r.blocked)
		err.Ran = true
		return nil, err
	}
	files, texts, err := r.collect(e)
	if err != nil {
		return nil, err
	}
	out := &backend.Outcome{Handle: r.h, Files: files, Texts: texts, Cached: r.plan.AllCached(e.CachedNodes())}
	out.StartedAt, out.EndedAt = e.Times()
	out.Handle.From, out.Handle.To = out.StartedAt, out.EndedAt
	_, out.GPU = r.s.known()
	r.track.Finish()
	r.tell()
	return out, nil
}

// lastEvents waits for what the socket still holds when a look at the history was quicker: long where it is frames,
// else a moment.
func (r *run) lastEvents(ctx context.Context) error {
	limit, more := r.s.t.frames, r.started || !r.frames.gap
	if len(r.plan.Sockets) == 0 {
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
				return backend.Detached(ctx)
			}
			err := r.event(ctx, e)
			if err != nil || r.over || e.kind == "down" {
				return err
			}
			if e.kind == "frame" {
				wait.Reset(limit) // to store it has taken its time: the silence of the socket counts
			}
		case <-wait.C:
			if len(r.sock.events) > 0 { // both were there, and what the socket holds comes first
				wait.Reset(0)
				continue
			}
			r.frames.gap = true
			return nil
		case <-ctx.Done():
			return backend.Detached(ctx)
		}
	}
}

// collect reads the outputs of every node and matches those that came by socket with the frames.
func (r *run) collect(e *comfyui.History) ([]backend.File, []backend.Text, error) {
	var files []backend.File
	var texts []backend.Text
	nodes := map[string]bool{}
	for id := range e.Outputs {
		nodes[id] = true
	}
	for id := range r.plan.Sockets {
		nodes[id] = true
	}
	for _, id := range slices.SortedFunc(maps.Keys(nodes), comfy.CompareIDs) {
		n := comfyui.ReadOutputs(id, e.Outputs[id])
		if err := comfyui.Unserved(n.Files); err != nil {
			return nil, nil, err
		}
		files, texts = append(files, n.Files...), append(texts, n.Texts...)
		frames := r.frames.files[id]
		lost := len(frames) != n.BySocket
		if r.plan.Sockets[id] && n.BySocket == 0 {
			if node := r.p.Graph.Nodes[id]; node.ClassType == comfyui.CoreSocketClass {
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
