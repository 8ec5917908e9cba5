package modal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
	"github.com/comfyd/comfyd/internal/logs"
)

// run is one call of Run.
type run struct {
	b     *Backend
	c     *containers // nil where nobody knows them
	p     *backend.Prompt
	h     backend.Handle
	rec   backend.Recorder
	log   logrus.FieldLogger
	plan  *comfyui.Plan
	track *comfyui.Tracker

	handed  bool // Modal has the prompt, or may have
	started bool
}

// Run implements [backend.Backend]. A handle without a call ID is of an attempt of which nobody knows whether it has
// handed the prompt over: the app's ledger is asked who has it. Where the handle names the server, the prompt is barred
// in the same question, so that a call that is still on its way does nothing: the answer BackendLost is then final.
//
// When ctx ends it returns an error that unwraps to the context's, and the call runs on.
func (b *Backend) Run(ctx context.Context, p *backend.Prompt, h *backend.Handle, rec backend.Recorder) (_ *backend.Outcome, err error) {
	defer func() { err = comfyui.OwnNames(p, err) }()
	if h != nil {
		return b.attach(ctx, p, *h, rec)
	}
	dep, err := b.well()
	if err != nil {
		return nil, err
	}
	if err := b.check(p); err != nil {
		return nil, b.sure(ctx, p, err)
	}
	r := b.newRun(ctx, p, backend.Handle{Pool: b.pool.Name, Server: b.name, PromptID: p.ID, JobID: p.JobID, Submission: p.Submission}, rec)
	r.c = dep.containers(variantOf(p, b.settings()))
	paths := r.inputPaths()
	if err := r.record(ctx); err != nil {
		return nil, r.left(ctx, err)
	}
	if err := r.submit(ctx, paths); err != nil {
		return nil, r.left(ctx, b.typed(ctx, err))
	}
	rec.Progress(backend.Update{Progress: comfy.Progress{NodesTotal: len(r.plan.Nodes)}})
	return r.follow(ctx)
}

// left says of a prompt whose context has ended whether it was surely not handed over.
func (r *run) left(ctx context.Context, err error) error {
	var be *backend.Error
	if ctx.Err() != nil && errors.As(err, &be) {
		be.Unsent = !r.handed
	}
	return err
}

// attach goes on with a prompt of an earlier attempt.
func (b *Backend) attach(ctx context.Context, p *backend.Prompt, h backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
	r := b.newRun(ctx, p, h, rec)
	if dep := b.deployment(); dep != nil {
		r.c = dep.containers(variantOf(p, b.settings()))
	}
	if h.CallID != "" {
		return r.follow(ctx)
	}
	if h.Server != "" && h.Server != b.name {
		return nil, backend.Errorf(comfy.BackendLost, "the app %s that had the prompt is not configured any more", strings.TrimPrefix(h.Server, "modal/"))
	}
	id, err := b.locate(ctx, h.PromptID, h.Server != "")
	if err != nil {
		return nil, backend.Detached(ctx)
	}
	if id == "" {
		return nil, backend.Errorf(comfy.BackendLost, "no call at Modal has the prompt")
	}
	r.h.CallID, r.h.Server = id, b.name
	r.inputPaths()
	if err := r.record(ctx); err != nil {
		return nil, err
	}
	return r.follow(ctx)
}

func (b *Backend) newRun(ctx context.Context, p *backend.Prompt, h backend.Handle, rec backend.Recorder) *run {
	var parsed *catalog.Catalog
	if cat := b.known(); cat != nil {
		parsed = cat.parsed
	}
	plan := comfyui.PlanOf(parsed, p.Graph)
	return &run{b: b, p: p, h: h, rec: rec, plan: plan, track: comfyui.NewTracker(plan),
		log: logs.In(ctx, b.log).WithFields(logrus.Fields{logs.CallID: p.JobID, logs.Backend: b.pool.Name, "prompt_id": h.PromptID})}
}

// inputPaths says where each of the job's files goes below ComfyUI's input folder, in the handle too.
func (r *run) inputPaths() map[string]string {
	paths := map[string]string{}
	r.h.Inputs = nil
	for _, in := range r.p.Inputs {
		paths[in.Name] = comfyui.InputPath(r.p.JobID, in)
		r.h.Inputs = append(r.h.Inputs, paths[in.Name])
	}
	return paths
}

// record makes the handle durable.
func (r *run) record(ctx context.Context) error {
	if err := r.rec.Handle(ctx, r.h); err != nil {
		if ctx.Err() != nil {
			return backend.Detached(ctx)
		}
		return &backend.Error{Code: comfy.Internal, Message: "the prompt's handle could not be recorded", Cause: err}
	}
	return nil
}

// submit hands the prompt to Modal and makes the call's ID durable.
func (r *run) submit(ctx context.Context, paths map[string]string) error {
	var size int64
	for _, in := range r.p.Inputs {
		size += in.Size
	}
	if size > maxInputs {
		return backend.Errorf(comfy.InvalidWorkflow, "the files that come with the job have %d bytes, and at most %d can be handed to Modal", size, maxInputs)
	}
	held := 2 * size
	if err := r.b.uploads.Acquire(ctx, held); err != nil {
		return err
	}
	defer r.b.uploads.Release(held)
	args, size, err := r.arguments(ctx, paths)
	if err != nil {
		return err
	}
	fn, err := r.b.runMethod(ctx, r.c)
	if err == nil {
		r.h.CallID, err = r.b.spawn(ctx, fn, args, size)
		r.handed = err == nil || errors.Is(err, errDoubt)
	}
	if err == nil {
		r.c.taken()
	} else {
		r.b.refusedBy(r.c, err)
	}
	switch {
	case errors.Is(err, errDoubt) && ctx.Err() == nil:
		r.log.WithError(err).Warn("handing a prompt to Modal came to no clear end; asking who has it")
		if r.h.CallID, err = r.b.locate(ctx, r.h.PromptID, true); err == nil && r.h.CallID == "" {
			return backend.Errorf(comfy.BackendLost, "the connection to Modal broke while the prompt was handed over, and Modal does not have it")
		}
	case isNotFound(err):
		r.b.wake() // deployed anew, or taken away
	case err != nil && strings.Contains(err.Error(), "multipart"): // blob.go: blobUpload; it has no type
		return &backend.Error{Code: comfy.InvalidWorkflow, Cause: err, Message: fmt.Sprintf("the workflow and its files (%d bytes) are more than Modal takes in one call", size)}
	}
	if err != nil {
		return err
	}
	if err := r.record(ctx); err != nil {
		if ctx.Err() == nil { // nobody will look for it
			stop, done := context.WithTimeout(ctx, r.b.t.giveUp)
			defer done()
			err = errors.Join(err, r.b.Cancel(stop, r.h))
		}
		return err
	}
	return nil
}

// options go to the app's `run` with the graph.
type options struct {
	PromptID     string          `json:"prompt_id"`
	ExtraPNGInfo json.RawMessage `json:"extra_pnginfo,omitempty"`
	Sockets      []string        `json:"sockets,omitempty"`
	StallTimeout float64         `json:"stall_timeout,omitempty"` // seconds
	Progress     bool            `json:"progress"`
	Previews     bool            `json:"previews"` // among the progress
}

// arguments are those of the app's `run`. The graph travels as text: as a map of Go's it would reach Python with every
// number a float, and ComfyUI refuses links like ["1", 0.0].
func (r *run) arguments(ctx context.Context, paths map[string]string) (args []any, size int64, err error) {
	graph, err := comfyui.Graph(r.p, r.plan, paths)
	if err != nil {
		return nil, 0, err
	}
	info, err := comfyui.PNGInfo(r.p)
	if err != nil {
		return nil, 0, err
	}
	opts, err := json.Marshal(options{PromptID: r.p.ID, ExtraPNGInfo: info, Sockets: slices.SortedFunc(maps.Keys(r.plan.Sockets), comfy.CompareIDs),
		StallTimeout: r.p.StallTimeout.Seconds(), Progress: true, Previews: r.b.o.Previews})
	if err != nil {
		return nil, 0, &backend.Error{Code: comfy.Internal, Message: "the prompt cannot be written down", Cause: err}
	}
	inputs := []any{}
	for _, in := range r.p.Inputs {
		data, err := readInput(ctx, in)
		if err != nil {
			return nil, 0, err
		}
		inputs = append(inputs, []any{paths[in.Name], data})
		size += in.Size
	}
	return []any{string(graph), r.p.JobID, string(opts), inputs}, size + int64(len(graph)+len(opts)), nil
}

// readInput reads a file whole, and makes sure that it is the one that came with the job.
func readInput(ctx context.Context, in backend.Input) ([]byte, error) {
	broken := &backend.Error{Code: comfy.Storage, Message: fmt.Sprintf("the input %q cannot be read from the store", in.Name)}
	body, err := in.Open(ctx)
	if err != nil {
		broken.Cause = err
		return nil, broken
	}
	defer body.Close()
	var data bytes.Buffer
	data.Grow(int(in.Size) + bytes.MinRead)
	if _, err := data.ReadFrom(io.LimitReader(body, in.Size+1)); err != nil {
		broken.Cause = err
		return nil, broken
	}
	if sum := sha256.Sum256(data.Bytes()); int64(data.Len()) != in.Size || hex.EncodeToString(sum[:]) != in.SHA256 {
		broken.Message = fmt.Sprintf("the input %q is not what it was when it was sent: the store gave other bytes", in.Name)
		return nil, broken
	}
	return data.Bytes(), nil
}
