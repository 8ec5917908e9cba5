package activities

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

const (
	// maxGraph bounds what is read back as a graph: the largest body that the API takes.
	maxGraph = 100 << 20
	// readTimeout is shorter than the heartbeat timeout.
	readTimeout = 4 * time.Second
	// maxInlineText is how much of a text travels in the result, maxInlineTexts how much of all; the rest lies in the store.
	maxInlineText  = 8 << 10
	maxInlineTexts = 256 << 10
	// maxFiles of a job: each takes about 420 bytes of the result, and Temporal takes 2 MiB.
	maxFiles = 3000
)

// graph reads a workflow from the store. It is short: nothing heartbeats meanwhile.
func (a *Activities) graph(ctx context.Context, key string) ([]byte, error) {
	ctx, done := context.WithTimeout(ctx, readTimeout)
	defer done()
	raw, err := a.read(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fail(&backend.Error{Code: comfy.Storage, Message: "the store no longer has the job's workflow", Cause: err})
	case err != nil:
		return nil, again(&backend.Error{Code: comfy.Storage, Message: "the job's workflow cannot be read from the store", Cause: err})
	}
	return raw, nil
}

func (a *Activities) read(ctx context.Context, key string) ([]byte, error) {
	r, err := a.o.Store.Open(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxGraph))
}

// slim keeps an outcome small enough for Temporal's history, which takes payloads up to 2 MiB: long texts go to the
// store, and so does what is above a budget for all of them.
func (a *Activities) slim(ctx context.Context, out *backend.Outcome, jobID string) error {
	if n := len(out.Files); n > maxFiles {
		return backend.Errorf(comfy.InvalidWorkflow, "the workflow made %d files; a job may have %d at most, so split it", n, maxFiles)
	}
	if n := len(out.Texts); n > maxFiles {
		return backend.Errorf(comfy.InvalidWorkflow, "the workflow made %d texts; a job may have %d at most, so split it", n, maxFiles)
	}
	budget := maxInlineTexts
	for i := range out.Texts {
		t := &out.Texts[i]
		if len(t.Text) <= maxInlineText && len(t.Text) <= budget {
			budget -= len(t.Text)
			continue
		}
		blob, err := a.o.Store.PutHashed(ctx, comfy.OutputPrefix(jobID), strings.NewReader(t.Text))
		if err != nil {
			return &backend.Error{Code: comfy.Storage, Message: "the store did not take a text of node " + t.NodeID, NodeID: t.NodeID, Cause: err}
		}
		t.Text, t.Blob = "", &blob
	}
	return nil
}

func (a *Activities) opener(key string) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) { return a.o.Store.Open(ctx, key, 0, -1) }
}
