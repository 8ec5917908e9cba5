package backendtest

import (
	"context"
	"errors"
	"image/color"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

func (s *suite) handleFails() {
	rec := NewRecorder()
	rec.HandleErr = errors.New("no heartbeat")
	p := s.prompt(solid(8, 8, 1, 5))
	_, err := s.b.Run(s.ctx, p, nil, rec)
	require.ErrorIs(s.T, err, rec.HandleErr)
	s.gone(p)
}

// gone checks that a backend does not know a prompt.
func (s *suite) gone(p *backend.Prompt) {
	s.Helper()
	h := backend.Handle{Pool: s.b.Pool().Name, Server: s.b.Servers()[0].Name, PromptID: p.ID, JobID: p.JobID, Submission: 1}
	rec := NewRecorder()
	_, err := s.b.Run(s.ctx, p, &h, rec)
	e := s.fails(err, comfy.BackendLost)
	require.False(s.T, e.Ran)
	require.Empty(s.T, rec.Handles())
}

// start runs a slow prompt until it shows progress, and returns how to leave it and where its end comes.
func (s *suite) start(p *backend.Prompt) (leave func(), h backend.Handle, end chan result) {
	ctx, cancel := context.WithCancel(s.ctx)
	rec, end := NewRecorder(), make(chan result, 1)
	go func() {
		out, err := s.b.Run(ctx, p, nil, rec)
		end <- result{out, err}
	}()
	require.Eventually(s.T, func() bool {
		u := rec.Updates()
		return len(u) > 0 && u[len(u)-1].Running && u[len(u)-1].Progress.Step > 0
	}, time.Minute, 10*time.Millisecond, "the slow prompt showed no progress")
	return cancel, last(rec), end
}

// last is the handle that was recorded last.
func last(rec *Recorder) backend.Handle {
	handles := rec.Handles()
	return handles[len(handles)-1]
}

type result struct {
	out *backend.Outcome
	err error
}

func (s *suite) reattach() {
	p := s.prompt(slow(slowRows))
	leave, h, end := s.start(p)
	leave()
	r := <-end
	require.ErrorIs(s.T, r.err, context.Canceled)
	var e *backend.Error
	require.ErrorAs(s.T, r.err, &e)

	rec := NewRecorder()
	out, err := s.b.Run(s.ctx, p, &h, rec)
	require.NoError(s.T, err)
	require.Empty(s.T, rec.Handles(), "it was submitted anew")
	require.Equal(s.T, p.ID, out.Handle.PromptID)
	require.Len(s.T, out.Files, 1)
	s.solid(out, out.Files[0], 384, 8*slowRows, color.NRGBA{})
}

func (s *suite) reattachEnded() {
	p := s.prompt(solid(64, 48, 2, 0x0000ff))
	out, rec := s.run(p)
	h := last(rec)
	again, err := s.b.Run(s.ctx, p, &h, NewRecorder())
	require.NoError(s.T, err)
	require.Equal(s.T, out, again)
}

// reattachAnywhere: of an attempt that left no handle, only the prompt's ID is known.
func (s *suite) reattachAnywhere() {
	p := s.prompt(slow(slowRows))
	leave, _, end := s.start(p)
	leave()
	require.ErrorIs(s.T, (<-end).err, context.Canceled)
	h := backend.Handle{Pool: s.b.Pool().Name, PromptID: p.ID, JobID: p.JobID, Submission: 1}
	rec := NewRecorder()
	out, err := s.b.Run(s.ctx, p, &h, rec)
	require.NoError(s.T, err)
	require.Len(s.T, out.Files, 1)
	require.Len(s.T, rec.Handles(), 1, "where it was found must be made durable")
	require.Equal(s.T, p.ID, rec.Handles()[0].PromptID)
	require.NotEmpty(s.T, rec.Handles()[0].Server+rec.Handles()[0].CallID)

	unknown := s.prompt(solid(8, 8, 1, 6))
	h.PromptID, h.JobID = unknown.ID, unknown.JobID
	rec = NewRecorder()
	_, err = s.b.Run(s.ctx, unknown, &h, rec)
	require.False(s.T, s.fails(err, comfy.BackendLost).Ran)
	require.Empty(s.T, rec.Handles())
}

func (s *suite) reattachUnknown() { s.gone(s.prompt(solid(8, 8, 1, 6))) }

func (s *suite) cancelRunning() {
	p := s.prompt(slow(slowRows))
	_, h, end := s.start(p)
	require.NoError(s.T, s.b.Cancel(s.ctx, h))
	r := <-end
	s.fails(r.err, comfy.Canceled)
	require.NoError(s.T, s.b.Cancel(s.ctx, h), "twice")
	s.run(s.prompt(solid(8, 8, 1, 7)))
}

func (s *suite) cancelWaiting() {
	slowly := s.prompt(slow(slowRows))
	_, _, end := s.start(slowly)
	waiting := s.prompt(solid(8, 8, 1, 8))
	ctx, leave := context.WithCancel(s.ctx)
	rec, waits := NewRecorder(), make(chan result, 1)
	go func() {
		out, err := s.b.Run(ctx, waiting, nil, rec)
		waits <- result{out, err}
	}()
	require.Eventually(s.T, func() bool {
		u := rec.Updates()
		return len(u) > 0 && !u[len(u)-1].Running && (u[len(u)-1].QueuePosition == nil || *u[len(u)-1].QueuePosition == 0)
	}, time.Minute, 10*time.Millisecond, "it was not told that the prompt waits, as the next one")
	leave()
	require.ErrorIs(s.T, (<-waits).err, context.Canceled)
	require.NoError(s.T, s.b.Cancel(s.ctx, last(rec)))
	s.gone(waiting)
	r := <-end
	require.NoError(s.T, r.err, "the one that ran was hit")
	require.Len(s.T, r.out.Files, 1)
}

func (s *suite) cancelNothing() {
	p := s.prompt(solid(8, 8, 1, 9))
	out, _ := s.run(p)
	require.NoError(s.T, s.b.Cancel(s.ctx, out.Handle))
	again, err := s.b.Run(s.ctx, p, &out.Handle, NewRecorder())
	require.NoError(s.T, err, "cancelling an ended prompt changed it")
	require.Equal(s.T, out.Files, again.Files)
	h := out.Handle
	h.PromptID = s.prompt(solid(8, 8, 1, 9)).ID
	require.NoError(s.T, s.b.Cancel(s.ctx, h))
}
