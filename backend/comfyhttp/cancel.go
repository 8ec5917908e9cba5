package comfyhttp

import (
	"context"
	"errors"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// Cancel implements [backend.Backend]. A node that does not look up cannot be interrupted, so it may take as long as
// that node. A server that has refused connections for a while runs nothing any more.
func (b *Backend) Cancel(ctx context.Context, h backend.Handle) error {
	if h.Server == "" {
		return errors.Join(b.each(func(s *server) error { return s.stop(ctx, h.PromptID) })...)
	}
	s := b.find(h.Server)
	if s == nil {
		return notHere(comfy.BackendUnavailable, h)
	}
	return s.stop(ctx, h.PromptID)
}

// stop takes a prompt out of the queue or interrupts it, and returns when it is gone.
func (s *server) stop(ctx context.Context, id string) error {
	var (
		refusing    time.Time
		interrupted time.Time
		looked      bool
		wait        = s.t.cancel
		last        error
	)
	for {
		where, err := s.tryStop(ctx, id, &interrupted)
		last = err
		var ce *callError
		switch {
		case err != nil && errors.As(err, &ce) && ce.refused:
			if refusing.IsZero() {
				refusing = time.Now()
			}
			if time.Since(refusing) >= s.t.refused {
				return nil
			}
		case err != nil:
			refusing = time.Time{}
		case where == ended, where == nowhere && looked:
			return nil
		default: // nowhere at the first look: a post of it may still be under way
			refusing, looked = time.Time{}, true
		}
		select {
		case <-ctx.Done():
			return &backend.Error{Code: comfy.BackendUnavailable, Message: "the prompt could not be stopped in time", Cause: errors.Join(ctx.Err(), last)}
		case <-time.After(wait):
		}
		wait = min(2*wait, 10*s.t.cancel)
	}
}

// place is where a prompt is.
type place int

const (
	nowhere place = iota
	ended
	waiting
	running
)

// tryStop does once what can be done to stop a prompt, and tells where it was found. It interrupts only when the queue
// says that this very prompt runs: old versions of ComfyUI pay no heed to prompt_id in /interrupt.
func (s *server) tryStop(ctx context.Context, id string, interrupted *time.Time) (place, error) {
	if err := s.dequeue(ctx, id); err != nil {
		return nowhere, err
	}
	if entry, err := s.history(ctx, id); err != nil || entry != nil {
		return ended, err
	}
	q, err := s.queue(ctx)
	if err != nil {
		return nowhere, err
	}
	runs, position := q.find(id)
	switch {
	case runs && time.Since(*interrupted) > 20*s.t.cancel:
		*interrupted = time.Now()
		return running, s.post(ctx, "/interrupt", map[string]string{"prompt_id": id})
	case runs:
		return running, nil
	case position >= 0:
		return waiting, nil
	default:
		return nowhere, nil
	}
}

// dequeue takes a waiting prompt out of the queue. ComfyUI says 200 whether it was there or not.
func (s *server) dequeue(ctx context.Context, id string) error {
	return s.post(ctx, "/queue", map[string][]string{"delete": {id}})
}
