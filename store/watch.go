package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// watch ends a context when nothing has moved for a while: a transfer may take long, but not stand still.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	after  time.Duration
}

func newWatch(parent context.Context, after time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(parent)
	w := &watch{ctx: ctx, cancel: cancel, after: after}
	w.timer = time.AfterFunc(after, w.expire)
	return ctx, w
}

func (w *watch) expire() {
	w.cancel(fmt.Errorf("nothing came or went for %s: %w", w.after, context.DeadlineExceeded))
}

// limit starts to wait anew, from now on for another time. It is not for two goroutines at once.
func (w *watch) limit(after time.Duration) {
	w.timer.Stop()
	w.after = after
	w.timer = time.AfterFunc(after, w.expire)
}

// stop ends the context and the watch. What explain has to tell does not change any more.
func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// explain puts the reason into an error that only knows that its context ended.
func (w *watch) explain(err error) error {
	if cause := context.Cause(w.ctx); err != nil && errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("%w (%v)", cause, err)
	}
	return err
}

// reader tells the watch of every read.
func (w *watch) reader(r io.Reader) io.Reader { return &watched{Reader: r, w: w} }

type watched struct {
	io.Reader
	w *watch
}

func (r *watched) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.w.timer.Reset(r.w.after)
	return n, err
}
