package activities

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/logs"
)

// CollectInput is what a prompt has made.
type CollectInput struct {
	JobID   string          `json:"job_id"`
	Outcome backend.Outcome `json:"outcome"`
	// StripMetadata removes the graph from PNG and WebP files.
	StripMetadata bool `json:"strip_metadata,omitempty"`
}

// Collected are the outputs, stored whole.
type Collected struct {
	Images []comfy.Output `json:"images,omitempty"`
	Files  []comfy.Output `json:"files,omitempty"`
	Texts  []comfy.Text   `json:"texts,omitempty"`
}

// maxFetches is how often an output that is gone or broken is asked for. A backend or a store that does not answer is
// asked for as long as the workflow allows.
const maxFetches = 3

// Collect moves the outputs of a prompt from its backend into the store, each whole or not at all. It may run again:
// what is there already is not written twice. Errors: OutputLost where the backend no longer has a file or hands out a
// broken one, Storage where the store does not take it.
func (a *Activities) Collect(ctx context.Context, in CollectInput) (*Collected, error) {
	b := a.backend(in.Outcome.Handle.Pool)
	if b == nil {
		return nil, again(backend.Errorf(comfy.OutputLost, "this worker does not serve the pool %q, whose outputs are to be collected", in.Outcome.Handle.Pool))
	}
	stop := each(HeartbeatEvery, func(time.Time) { activity.RecordHeartbeat(ctx) })
	defer stop()
	c, err := a.collectAll(ctx, b, in)
	if err != nil {
		return nil, refetch(ctx, err)
	}
	return c, nil
}

const (
	// atOnceOutputs and atOnceTime bound what Prompt stores itself: its slot is the GPU's, which must not wait for a store.
	// In that time the other slot's prompt runs. Texts count, because they then stand twice in what the activity answers.
	atOnceOutputs = 8
	atOnceTime    = 250 * time.Millisecond
)

// collectAtOnce stores the outputs of a prompt that has made few, so that a small job does not pay for a step of its own.
// Where anything is in the way, Collect does it, with all its patience.
func (a *Activities) collectAtOnce(ctx context.Context, b backend.Backend, job Job, out *backend.Outcome) *Prompted {
	p := &Prompted{Outcome: *out}
	if len(out.Files)+len(out.Texts) > atOnceOutputs {
		return p
	}
	began := time.Now()
	ctx, done := context.WithCancel(ctx)
	defer done()
	defer time.AfterFunc(a.o.AtOnce, done).Stop() // no deadline: the store's metrics would count one as a failure of the store
	c, err := a.collectAll(ctx, b, CollectInput{JobID: job.ID, Outcome: *out, StripMetadata: job.Request.StripMetadata})
	if err != nil {
		logs.In(ctx, a.o.Log).WithError(err).Debug("the outputs are left to Collect")
		return p
	}
	p.Collected, p.CollectMS = c, time.Since(began).Milliseconds()
	return p
}

// collectAll stores every output, whole.
func (a *Activities) collectAll(ctx context.Context, b backend.Backend, in CollectInput) (*Collected, error) {
	var c Collected
	for _, f := range in.Outcome.Files {
		o, err := a.collect(ctx, b, in, f)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(o.ContentType, "image/") {
			c.Images = append(c.Images, *o)
		} else {
			c.Files = append(c.Files, *o)
		}
	}
	for _, t := range in.Outcome.Texts {
		o := comfy.Text{NodeID: t.NodeID, Text: t.Text, Size: int64(len(t.Text))}
		if t.Blob != nil {
			o.Ref, o.Size = t.Blob.Key, t.Blob.Size
		}
		c.Texts = append(c.Texts, o)
	}
	return &c, nil
}

// collect stores one file.
func (a *Activities) collect(ctx context.Context, b backend.Backend, in CollectInput, f backend.File) (*comfy.Output, error) {
	body, size, err := a.open(ctx, b, in.Outcome.Handle, f)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	look := newInspector(f.Filename, size)
	src := look.reader(body)
	if in.StripMetadata {
		if src, err = stripMetadata(src); err != nil {
			return nil, lost(f, err)
		}
	}
	stored := storing{src: src}
	blob, err := a.o.Store.PutHashed(ctx, comfy.OutputPrefix(in.JobID), &stored)
	switch {
	case stored.err != nil:
		return nil, lost(f, stored.err)
	case err != nil:
		return nil, &backend.Error{Code: comfy.Storage, Message: "the store did not take an output of node " + f.NodeID, NodeID: f.NodeID, Cause: err}
	}
	return &comfy.Output{
		Filename: path.Base(f.Filename), Subfolder: f.Subfolder, Ref: blob.Key, NodeID: f.NodeID,
		ContentType: look.contentType(), SizeBytes: blob.Size, SHA256: blob.SHA256,
		Width: look.width, Height: look.height, Temp: f.Folder == "temp",
	}, nil
}

func (a *Activities) open(ctx context.Context, b backend.Backend, h backend.Handle, f backend.File) (io.ReadCloser, int64, error) {
	if f.Blob == nil {
		return b.Open(ctx, h, f)
	}
	r, err := a.o.Store.Open(ctx, f.Blob.Key, 0, -1)
	if err != nil {
		return nil, 0, &backend.Error{Code: comfy.Storage, Message: "the store lost an output of node " + f.NodeID, NodeID: f.NodeID, Cause: err}
	}
	return &storeBody{ReadCloser: r, nodeID: f.NodeID}, f.Blob.Size, nil
}

// handBacks is how often a step comes back to its pool's queue because the server of its prompt is not one of the worker's
// that took it: while COMFYUI_URLS changes from worker to worker, and where workers of one pool were given different
// servers by mistake. After that nobody has it.
const handBacks = 8

func handsBack(ctx context.Context, err error) bool {
	return errors.Is(err, backend.ErrNotHere) && activity.GetInfo(ctx).Attempt < handBacks
}

// refetch decides whether it is worth asking again.
func refetch(ctx context.Context, err error) error {
	var be *backend.Error
	switch {
	case !errors.As(err, &be):
	case handsBack(ctx, err):
	case be.Code == comfy.OutputLost && activity.GetInfo(ctx).Attempt >= maxFetches:
		return fail(err)
	case be.Code == comfy.BackendUnavailable: // should it stay so, this is what it means for the job
		return again(&backend.Error{Code: comfy.OutputLost, Message: be.Message, NodeID: be.NodeID, Cause: be})
	}
	return again(err)
}

// lost says that an output cannot be had whole.
func lost(f backend.File, err error) error {
	var be *backend.Error
	if errors.As(err, &be) {
		return be
	}
	return &backend.Error{
		Code: comfy.OutputLost, NodeID: f.NodeID, Cause: err,
		Message: fmt.Sprintf("the file %q of node %s could not be fetched whole: %v", f.Filename, f.NodeID, err),
	}
}

// storeBody is an output that lies in the store. That it breaks off says nothing about the output.
type storeBody struct {
	io.ReadCloser
	nodeID string
}

func (s *storeBody) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = &backend.Error{Code: comfy.Storage, Message: "the store broke off an output of node " + s.nodeID, NodeID: s.nodeID, Cause: err}
	}
	return n, err
}

// storing remembers an error of the source, so that it is not taken for one of the store.
type storing struct {
	src io.Reader
	err error
}

func (s *storing) Read(p []byte) (int, error) {
	n, err := s.src.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}
