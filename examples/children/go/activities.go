package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/comfy/files"
)

var pickOptions = workflow.ActivityOptions{StartToCloseTimeout: time.Minute}

// Activities of this worker: what needs the bytes of a picture.
type Activities struct {
	Files files.Client
}

// Pick chooses the picture with the most detail: of PNGs of one size, the one with the most bytes. It reads each whole,
// and so knows that it is what its SHA-256 says.
func (a *Activities) Pick(ctx context.Context, from []comfy.Output) (*comfy.Output, error) {
	var best *comfy.Output
	var most int64
	for _, out := range from {
		n, err := a.read(ctx, out)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", out.Filename, err)
		}
		if n > most {
			best, most = &out, n
		}
	}
	if best == nil {
		return nil, errors.New("there is nothing to pick from")
	}
	return best, nil
}

func (a *Activities) read(ctx context.Context, out comfy.Output) (n int64, err error) {
	r, err := a.Files.Open(ctx, out)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.Copy(io.Discard, r)
}
