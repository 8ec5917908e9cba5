package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/examples"
)

// look is how often a backend that is not ready is asked again.
const look = 2 * time.Second

// example runs one example as a job of no comfyd, and reads all that it makes.
func (d *Doctor) example(ctx context.Context, e examples.Example) (string, error) {
	g, err := comfy.ParseGraph(e.Workflow)
	if err != nil {
		return "", err
	}
	p := &backend.Prompt{JobID: "doctor-" + e.Name, ID: uuid.NewString(), Submission: 1, Graph: g, StallTimeout: limit, RunTimeout: limit}
	began := time.Now()
	if err := d.ready(ctx, p); err != nil {
		return "", said(err)
	}
	waited := time.Since(began)
	rec := new(last)
	out, err := d.Backend.Run(ctx, p, nil, rec)
	if err != nil {
		return "", errors.Join(said(err), d.leave(ctx, rec))
	}
	defer func() { _ = d.Backend.Release(context.WithoutCancel(ctx), out.Handle, out.Files) }() // Modal forgets it in a week by itself
	var bytes int64
	for _, f := range out.Files {
		n, err := d.read(ctx, out.Handle, f)
		if err != nil {
			return "", said(err)
		}
		bytes += n
	}
	if len(out.Files)+len(out.Texts) == 0 {
		return "", errors.New("it ended well and made nothing")
	}
	return fmt.Sprintf("%d files (%.1f MB), %d texts on %s in %.1f s, after %.1f s of waiting for a container",
		len(out.Files), float64(bytes)/1e6, len(out.Texts), out.GPU, out.EndedAt.Sub(out.StartedAt).Seconds(), waited.Seconds()), nil
}

// ready waits for a container, which the first question starts.
func (d *Doctor) ready(ctx context.Context, p *backend.Prompt) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		err := d.Backend.Ready(ctx, p)
		var be *backend.Error
		if err == nil || !errors.As(err, &be) || be.Code != comfy.BackendUnavailable {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

func (d *Doctor) read(ctx context.Context, h backend.Handle, f backend.File) (int64, error) {
	body, size, err := d.Backend.Open(ctx, h, f)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	n, err := io.Copy(io.Discard, body)
	if err == nil && size >= 0 && n != size {
		err = fmt.Errorf("%s has %d bytes, and %d came", f.Filename, size, n)
	}
	return n, err
}

// leave stops a call that is not followed any more.
func (d *Doctor) leave(ctx context.Context, rec *last) error {
	if ctx.Err() == nil || rec.handle == nil {
		return nil
	}
	stop, done := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer done()
	return d.Backend.Cancel(stop, *rec.handle)
}

// said is the message of a backend's error without its cause, which holds tracebacks.
func said(err error) error {
	var be *backend.Error
	if !errors.As(err, &be) {
		return err
	}
	text := fmt.Sprintf("%s: %s", be.Code, be.Message)
	if be.Cause != nil && be.Code != comfy.InvalidWorkflow {
		text += fmt.Sprintf("\n      %v", be.Cause)
	}
	return errors.New(text)
}

// last is a Recorder that keeps the newest handle.
type last struct{ handle *backend.Handle }

func (l *last) Handle(_ context.Context, h backend.Handle) error { l.handle = &h; return nil }

func (l *last) Progress(backend.Update) {}

func (l *last) Preview(backend.Preview) {}

func (l *last) Store(context.Context, io.Reader) (comfy.Blob, error) {
	return comfy.Blob{}, errors.New("no store here")
}
