package comfyhttp

import (
	"context"
	"errors"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/comfy"
)

// holder returns the server that a handle means. One that names none comes from an attempt of which only the prompt's
// ID is known: then all servers are asked, and the one that has the prompt is recorded.
func (b *Backend) holder(ctx context.Context, p *backend.Prompt, h *backend.Handle, rec backend.Recorder) (*server, error) {
	if h.Server != "" {
		if s := b.find(h.Server); s != nil {
			return s, nil
		}
		return nil, notHere(comfy.BackendLost, *h)
	}
	s := b.locate(ctx, h.PromptID)
	switch {
	case ctx.Err() != nil:
		return nil, backend.Detached(ctx)
	case s == nil:
		return nil, backend.Errorf(comfy.BackendLost, "no ComfyUI has the prompt")
	}
	h.Server = s.name
	for _, in := range p.Inputs {
		h.Inputs = append(h.Inputs, comfyui.InputPath(p.JobID, in))
	}
	if err := rec.Handle(ctx, *h); err != nil {
		return nil, &backend.Error{Code: comfy.Internal, Message: "the prompt's handle could not be recorded", Cause: err}
	}
	return s, nil
}

// notHere is the error of a handle whose server is not among ours.
func notHere(code comfy.Code, h backend.Handle) *backend.Error {
	return &backend.Error{Code: code, Cause: backend.ErrNotHere,
		Message: "the server " + h.Server + " that had the prompt is not configured any more"}
}

// locate asks every server for a prompt. It returns nil when all of them have said no twice, or nothing for as long as
// it takes to give a server up, since they were last seen.
func (b *Backend) locate(ctx context.Context, id string) *server {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan *server, len(b.servers))
	b.each(func(s *server) error {
		if s.search(ctx, id) {
			found <- s
			cancel()
		}
		return nil
	})
	select {
	case s := <-found:
		return s
	default:
		return nil
	}
}

func (s *server) search(ctx context.Context, id string) bool {
	began, absent := s.report().LastSeen, 0
	if began.IsZero() {
		began = time.Now()
	}
	for {
		has, err := s.has(ctx, id)
		var ce *callError
		switch {
		case has:
			return true
		case err == nil:
			if absent++; absent == 2 {
				return false
			}
		case time.Since(began) >= s.t.hung, errors.As(err, &ce) && ce.refused && time.Since(began) >= s.t.refused:
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(s.t.absent):
		}
	}
}

// has tells whether the server knows a prompt. Between the first two looks it may end.
func (s *server) has(ctx context.Context, id string) (bool, error) {
	entry, err := s.history(ctx, id)
	if err != nil || entry != nil {
		return entry != nil, err
	}
	q, err := s.queue(ctx)
	if err != nil {
		return false, err
	}
	if running, position := q.find(id); running || position >= 0 {
		return true, nil
	}
	entry, err = s.history(ctx, id)
	return entry != nil, err
}
