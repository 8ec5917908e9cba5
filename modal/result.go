package modal

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"github.com/sirupsen/logrus"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/comfy"
)

// finish makes the outcome of a call that has succeeded at Modal, whatever became of the prompt in it. Other is the call
// that has the prompt in this one's place.
func (r *run) finish(ctx context.Context, item *pb.FunctionGetOutputsItem) (out *backend.Outcome, other string, err error) {
	m, _, err := r.b.manifest(ctx, r.h.CallID, item)
	var not *foreign
	switch {
	case errors.As(err, &not):
		return nil, "", &backend.Error{Code: comfy.Internal, Ran: true, Cause: err,
			Message: "the result at Modal is not one of comfyd's app, or of another version of it (" + firstLine(not.why) + "); deploy the app that belongs to this comfyd"}
	case errors.Is(err, errGone):
		return nil, "", r.expired()
	case err != nil:
		return nil, "", err
	}
	switch m.End {
	case "history":
		out, err = r.outcome(m)
		var failed *backend.Error
		if errors.As(err, &failed) {
			failed.Restarts = m.restarts()
		}
		return out, "", err
	case "refused":
		e := r.refused(m)
		e.Restarts = m.restarts()
		return nil, "", e
	case "duplicate":
		if m.CallID != "" && m.CallID != r.h.CallID {
			return nil, m.CallID, nil
		}
	case "barred":
		return nil, "", backend.Errorf(comfy.BackendLost, "the prompt was given up before a container at Modal took it")
	case "failed":
		if comfy.Code(m.Code) == comfy.BackendLost { // Modal would start containers for it without end; the app does not
			return nil, "", &backend.Error{Code: comfy.BackendLost, Message: m.Message, Ran: true, Final: true, Restarts: m.restarts()}
		}
		return nil, "", &backend.Error{Code: userCode(m.Code), Message: orElse(comfyui.Scrub(m.Message), "the app at Modal gives no reason"), Restarts: m.restarts()}
	}
	return nil, "", &backend.Error{Code: comfy.Internal, Ran: true, Message: "the app at Modal ended the prompt in a way that this comfyd does not know (" + firstLine(m.End) + "); deploy the app that belongs to it"}
}

// manifest reads the head of a call's result, and keeps where its files lie. It goes on asking through everything that
// may keep Modal's blob store from answering, until ctx ends; a blob that is not there is gone after a few tries.
func (b *Backend) manifest(ctx context.Context, id string, item *pb.FunctionGetOutputsItem) (*manifest, *index, error) {
	if f := item.GetDataFormat(); f != pb.DataFormat_DATA_FORMAT_CBOR {
		return nil, nil, &foreign{"its format is " + f.String()}
	}
	wait := newPause(b.t.again, b.t.againMost)
	for absent := 0; ; {
		m, x, err := b.tryManifest(ctx, item)
		var not *foreign
		switch {
		case err == nil:
			b.indexes.Add(id, x)
			return m, x, nil
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case errors.As(err, &not):
			return nil, nil, err
		case errors.Is(err, errGone):
			if absent++; absent >= b.t.resultTries {
				return nil, nil, errGone
			}
		}
		b.log.WithError(err).WithField("function_call", id).Warn("a result at Modal cannot be read; trying again")
		if err := sleep(ctx, wait.NextBackOff()); err != nil {
			return nil, nil, err
		}
	}
}

func (b *Backend) tryManifest(ctx context.Context, item *pb.FunctionGetOutputsItem) (*manifest, *index, error) {
	g := newGrowing(func(off, n int64) (io.ReadCloser, error) { return b.open(ctx, item.GetResult(), off, n) })
	defer g.Close()
	m, base, err := readManifest(g)
	if err != nil {
		return nil, nil, err
	}
	return m, newIndex(m, base), nil
}

// userCode is the code that the app gives a user error of its own.
func userCode(code string) comfy.Code {
	switch c := comfy.Code(code); c {
	case comfy.InvalidWorkflow, comfy.NodeFailed, comfy.OutOfMemory, comfy.Timeout, comfy.Canceled, comfy.OutputLost, comfy.Storage:
		return c
	}
	return comfy.Internal
}

// refused is the error of a prompt that ComfyUI did not take.
func (r *run) refused(m *manifest) *backend.Error {
	a, err := comfyui.ParseAnswer(m.Answer)
	if err != nil {
		a = &comfyui.Answer{Error: &comfyui.Refusal{Message: "it answered without a reason that can be read"}}
	}
	return comfyui.Refused(r.p.Graph, a)
}

// outcome reads what ComfyUI says about a prompt that has ended there, as it is read from any other ComfyUI.
func (r *run) outcome(m *manifest) (*backend.Outcome, error) {
	if err := m.History.Failure(); err != nil {
		return nil, err
	}
	for i := range m.Errors { // of a node whose output is blocked, the history does not know
		if m.Errors[i].Exception == "ExecutionBlocked" {
			err := comfyui.NodeFailed(&m.Errors[i])
			err.Ran = true
			return nil, err
		}
	}
	out := &backend.Outcome{Handle: r.h, Cached: r.plan.AllCached(m.History.CachedNodes()), ColdStartMS: m.Container.ColdStartMS, GPU: m.Container.GPU, Restarts: m.restarts()}
	if err := r.collect(m, out); err != nil {
		return nil, err
	}
	if out.StartedAt, out.EndedAt = m.History.Times(); out.StartedAt.IsZero() && m.StartedMS > 0 {
		out.StartedAt, out.EndedAt = time.UnixMilli(m.StartedMS), time.UnixMilli(m.EndedMS)
	}
	out.Handle.From, out.Handle.To = out.StartedAt, out.EndedAt
	r.log.WithFields(logrus.Fields{"function_call": r.h.CallID, "container": m.Container.ID, "gpu": m.Container.GPU, "cold_start_ms": m.Container.ColdStartMS}).Debug("the prompt has ended at Modal")
	r.started = true
	r.track.Finish()
	r.tell()
	return out, nil
}

// collect lists the outputs of every node, and makes sure that the result has each of them.
func (r *run) collect(m *manifest, out *backend.Outcome) error {
	have := newIndex(m, 0)
	frames, nodes := map[string][]backend.File{}, map[string]bool{}
	for _, f := range m.Frames {
		name := comfyui.FrameName(f.Node, len(frames[f.Node])+1, f.Ext)
		frames[f.Node] = append(frames[f.Node], backend.File{NodeID: f.Node, Key: "images", Filename: name, Folder: "output"})
		nodes[f.Node] = true
	}
	for id := range m.History.Outputs {
		nodes[id] = true
	}
	for id := range r.plan.Sockets {
		nodes[id] = true
	}
	for _, id := range slices.SortedFunc(maps.Keys(nodes), comfy.CompareIDs) {
		n := comfyui.ReadOutputs(id, m.History.Outputs[id])
		if err := comfyui.Unserved(n.Files); err != nil {
			return err
		}
		for _, f := range n.Files {
			if e, ok := have.find(f); !ok || e.Missing != "" {
				return &backend.Error{Code: comfy.OutputLost, NodeID: id, Ran: true,
					Message: "ComfyUI lists the output " + f.Filename + " of node " + id + ", but the file could not be read: " + sentence(orElse(e.Missing, "the app did not pass it on"))}
			}
		}
		lost := n.BySocket > 0 && len(frames[id]) != n.BySocket
		if n.BySocket == 0 && r.plan.Sockets[id] {
			lost = m.FramesGap
		}
		if lost {
			return &backend.Error{Code: comfy.OutputLost, NodeID: id, Ran: true,
				Message: "the images of node " + id + " were sent only once, and not all of them arrived; a node that saves files does not lose them"}
		}
		out.Files, out.Texts = append(append(out.Files, n.Files...), frames[id]...), append(out.Texts, n.Texts...)
	}
	return nil
}

// restarts is how often Modal has begun the call anew by itself, after it had taken the container away or that had died.
func (m *manifest) restarts() int { return max(m.Starts-1, 0) }

// find returns where a file of an outcome lies.
func (x *index) find(f backend.File) (entry, bool) {
	if e, ok := x.files[place{node: f.NodeID, filename: f.Filename}]; ok {
		return e, true
	}
	e, ok := x.files[place{folder: f.Folder, subfolder: f.Subfolder, filename: f.Filename}]
	return e, ok
}
