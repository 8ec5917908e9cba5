package modal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// Open implements [backend.Backend]. It streams the file out of the call's result, which Modal keeps until it is
// released, or for 7 days. A body that ends before its size, or with other bytes than the container had, fails.
func (b *Backend) Open(ctx context.Context, h backend.Handle, f backend.File) (io.ReadCloser, int64, error) {
	if f.Blob != nil {
		return nil, 0, backend.Errorf(comfy.Internal, "%s is in the store already", f.Filename)
	}
	gone := &backend.Error{Code: comfy.OutputLost, NodeID: f.NodeID, Message: fmt.Sprintf("Modal no longer has the result that holds %s of node %s", f.Filename, f.NodeID)}
	if h.CallID == "" {
		return nil, 0, gone
	}
	item, err := b.poll(ctx, h.CallID, 0, false)
	switch {
	case errors.Is(err, errGone):
		return nil, 0, gone
	case err != nil:
		return nil, 0, b.typed(ctx, err)
	case item == nil:
		return nil, 0, backend.Errorf(comfy.BackendUnavailable, "the call that makes %s has not ended yet", f.Filename)
	case item.GetResult().GetStatus() != pb.GenericResult_GENERIC_STATUS_SUCCESS:
		return nil, 0, gone
	}
	x, ok := b.indexes.Get(h.CallID)
	if !ok {
		if _, x, err = b.manifest(ctx, h.CallID, item); err != nil {
			return nil, 0, b.fileError(ctx, gone, err)
		}
	}
	e, ok := x.find(f)
	if !ok || e.Missing != "" || e.Size < 0 || e.Offset < 0 {
		return nil, 0, &backend.Error{Code: comfy.OutputLost, NodeID: f.NodeID, Message: fmt.Sprintf("the result at Modal does not hold the output %s of node %s", f.Filename, f.NodeID)}
	}
	body := io.NopCloser(io.Reader(bytes.NewReader(nil)))
	if e.Size > 0 {
		if body, err = b.open(ctx, item.GetResult(), x.base+e.Offset, e.Size); err != nil {
			return nil, 0, b.fileError(ctx, gone, err)
		}
	}
	return &fileBody{body: body, f: f, want: e, sum: sha256.New()}, e.Size, nil
}

// fileError types an error of the blob store: gone where it does not have the result.
func (b *Backend) fileError(ctx context.Context, gone *backend.Error, err error) error {
	var not *foreign
	if errors.Is(err, errGone) || errors.As(err, &not) {
		gone.Cause = err
		return gone
	}
	if ctx.Err() != nil {
		return backend.Detached(ctx)
	}
	return unavailable(err, "Modal does not hand out a result at the moment")
}

// fileBody makes sure that what was read is what the container had.
type fileBody struct {
	body io.ReadCloser
	f    backend.File
	want entry
	sum  hash.Hash
	n    int64
}

func (r *fileBody) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	r.sum.Write(p[:n])
	r.n += int64(n)
	switch {
	case err == nil:
	case err != io.EOF:
		err = unavailable(err, "the download of %s broke off", r.f.Filename)
	case r.n < r.want.Size:
		err = unavailable(io.ErrUnexpectedEOF, "the download of %s broke off after %d of %d bytes", r.f.Filename, r.n, r.want.Size)
	case r.want.SHA256 != "" && hex.EncodeToString(r.sum.Sum(nil)) != r.want.SHA256:
		err = &backend.Error{Code: comfy.OutputLost, NodeID: r.f.NodeID, Message: "the file " + r.f.Filename + " arrived from Modal with other bytes than the container had"}
	}
	return n, err
}

func (r *fileBody) Close() error { return r.body.Close() }

// Release implements [backend.Backend]: the result goes, and with it the files. Everything else of a job is removed in
// its container. FunctionGetOutputs with clear_on_success makes Modal drop what it keeps of a call (api.proto).
func (b *Backend) Release(ctx context.Context, h backend.Handle, _ []backend.File) error {
	if h.CallID == "" {
		return nil
	}
	item, err := b.poll(ctx, h.CallID, 0, true)
	if item == nil && err == nil { // its job has ended, and nobody could stop it then: it must not cost more
		if err = b.Cancel(ctx, h); err != nil {
			return err
		}
		_, err = b.poll(ctx, h.CallID, 0, true)
	}
	if err != nil && !errors.Is(err, errGone) {
		return &backend.Error{Code: comfy.BackendUnavailable, Message: "the job's result could not be removed from Modal; it expires there after 7 days", Cause: err}
	}
	return nil
}

// Cancel implements [backend.Backend]. Modal tells the call's container, which takes the prompt out of ComfyUI; it ends
// when the call has an output. A container may miss that, where it comes while the call is just beginning there (modal
// 1.6.4, container_io_manager.py: IOContext.cancel), or be unable to obey: so it is told again, and in the end Modal is
// told to end the container, in which nothing else runs.
//
// Without a call's ID the ledger is asked who has the prompt, and nobody ever will who has not yet.
func (b *Backend) Cancel(ctx context.Context, h backend.Handle) error {
	id := h.CallID
	if id == "" {
		var err error
		if id, err = b.locate(ctx, h.PromptID, true); err != nil {
			return unstopped(ctx, err)
		}
		if id == "" {
			return nil
		}
	}
	wait := newPause(b.t.again, b.t.againMost)
	var first time.Time      // when the container was told
	hold := time.Duration(0) // a call that has ended is left as it is
	var last error
	for {
		item, err := b.poll(ctx, id, hold, false)
		if item != nil || errors.Is(err, errGone) {
			return nil
		}
		if err == nil && ctx.Err() == nil {
			if first.IsZero() {
				first = time.Now()
				b.stopped.Add(id, struct{}{})
			}
			if err = b.tellCancel(ctx, id, time.Since(first) >= b.t.terminate); isNotFound(err) {
				return nil
			}
			hold = b.t.cancelAgain
		}
		if err == nil && ctx.Err() == nil {
			continue
		}
		if err != nil {
			last = err
		}
		if sleep(ctx, wait.NextBackOff()) != nil {
			return unstopped(ctx, last)
		}
	}
}

func (b *Backend) tellCancel(ctx context.Context, id string, terminate bool) error {
	ctx, done := context.WithTimeout(ctx, b.t.call)
	defer done()
	_, err := b.client.raw.FunctionCallCancel(ctx, pb.FunctionCallCancelRequest_builder{FunctionCallId: id, TerminateContainers: terminate}.Build())
	return err
}

// unstopped is the error of a prompt that may run on.
func unstopped(ctx context.Context, err error) error {
	return &backend.Error{Code: comfy.BackendUnavailable, Message: "the prompt could not be stopped at Modal in time", Cause: errors.Join(ctx.Err(), err)}
}
