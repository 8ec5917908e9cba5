package comfyhttp

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/comfy"
)

func TestCancelIsTargeted(t *testing.T) {
	f := setup(t, nil)
	f.s.OldInterrupt(true) // an old ComfyUI, on which any interrupt hits whatever runs
	gate := f.s.Hold("SaveImage")
	first := f.run(f.prompt(solid(1)), nil)
	gate.Reached()
	second := f.prompt(solid(2))
	waits := f.run(second, nil)
	f.s.Await("the second in the queue", func() bool { return f.s.Waiting() == 1 })
	h := f.rec.Handles()[1]
	require.Equal(t, second.ID, h.PromptID)
	require.NoError(t, f.b.Cancel(t.Context(), h))
	f.fails(waits, comfy.BackendLost)
	unknown := h
	unknown.PromptID = f.prompt(solid(3)).ID
	require.NoError(t, f.b.Cancel(t.Context(), unknown))
	gate.Open()
	done := f.succeeds(first)
	require.NoError(t, f.b.Cancel(t.Context(), done.Handle))
	require.Empty(t, f.s.Interrupts())
}

// TestCancelWaitsForTheEnd: a node that does not look up runs on.
func TestCancelWaitsForTheEnd(t *testing.T) {
	f := setup(t, nil)
	gate := f.s.Hold("EmptyImage")
	p := f.prompt(solid(1))
	end := f.run(p, nil)
	gate.Reached()
	h := f.rec.Handles()[0]
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	require.ErrorIs(t, f.b.Cancel(short, h), context.DeadlineExceeded)
	errorOf(t, f.b.Cancel(short, h), comfy.BackendUnavailable)
	gone := make(chan error, 1)
	go func() { gone <- f.b.Cancel(t.Context(), h) }()
	f.s.Await("the interrupt", func() bool { return len(f.s.Interrupts()) >= 2 })
	gate.Open()
	require.NoError(t, <-gone)
	f.fails(end, comfy.Canceled)
	for _, id := range f.s.Interrupts() {
		require.Equal(t, p.ID, id, "a global interrupt")
	}
}

// TestCancelOfLatePost: a prompt that is nowhere may be on its way.
func TestCancelOfLatePost(t *testing.T) {
	f := setup(t, func(_ *Options, tm *timing) {
		tm.cancel, tm.probe, tm.queueQuiet = 5*time.Second, time.Hour, time.Hour
	})
	gate := f.s.Hold("SaveImage")
	first := f.run(f.prompt(solid(1)), nil)
	gate.Reached()
	late := f.s.LatePost()
	p := f.prompt(solid(2))
	body, err := comfyui.Body(p, comfyui.NewPlan(p.Graph, nil), nil, false)
	require.NoError(t, err)
	_, err = f.b.servers[0].call(t.Context(), patience, "POST", "/prompt", body)
	require.Error(t, err)
	gone := make(chan error, 1)
	go func() { gone <- f.b.Cancel(t.Context(), backend.Handle{Server: f.s.URL, PromptID: p.ID}) }()
	f.s.Await("a look", func() bool { return f.s.Requests("GET /queue") == 1 })
	_, err = f.b.servers[0].queue(t.Context()) // and its answer
	require.NoError(t, err)
	late.Open()
	require.NoError(t, <-gone)
	require.Zero(t, f.s.Waiting())
	gate.Open()
	f.succeeds(first)
	require.Zero(t, f.s.Runs(p.ID))
}

func TestCancelOnDeadServer(t *testing.T) {
	f := setup(t, nil)
	gate := f.s.Hold("EmptyImage")
	end := f.run(f.prompt(solid(1)), nil)
	gate.Reached()
	h := f.rec.Handles()[0]
	f.s.Kill()
	require.NoError(t, f.b.Cancel(t.Context(), h), "what is dead runs nothing")
	f.fails(end, comfy.BackendLost)
	h.Server = "http://elsewhere:1"
	errorOf(t, f.b.Cancel(t.Context(), h), comfy.BackendUnavailable)
}
