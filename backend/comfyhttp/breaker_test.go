package comfyhttp

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestServerThatAlwaysFails: it answers, so it is well; it takes nothing, so it always has the fewest prompts. It must not
// draw all jobs, and it comes back with one that tries it.
func TestServerThatAlwaysFails(t *testing.T) {
	// begin runs prompts until the bad server has failed often enough to rest; next runs one more.
	begin := func(t *testing.T, rest time.Duration) (bad *fakecomfy.Server, b *Backend, next func(), refused *int) {
		bad, good := fakecomfy.New(t), fakecomfy.New(t)
		tm := quick()
		tm.rest = rest
		b = open(t, Options{URLs: []string{bad.URL, good.URL}}, tm)
		require.NoError(t, b.Probe(t.Context()))
		f := &fixture{T: t, s: good, b: b, rec: newRecorder()}
		refused = new(int)
		next = func() {
			if r := f.ends(f.run(f.prompt(solid(1)), nil)); r.err != nil {
				errorOf(t, r.err, comfy.BackendUnavailable)
				*refused++
			}
		}
		for range failuresInARow {
			bad.AnswerPost(503, "not now")
		}
		for range 2 * failuresInARow { // by turns
			next()
		}
		require.Equal(t, failuresInARow, *refused)
		return bad, b, next, refused
	}
	t.Run("it rests", func(t *testing.T) {
		bad, b, next, refused := begin(t, time.Hour)
		for range 14 {
			next()
		}
		require.Equal(t, failuresInARow, *refused, "then nobody asked it")
		require.Len(t, bad.Posted(), failuresInARow)
		s := b.Servers()[0]
		require.False(t, s.Healthy)
		require.Contains(t, s.Problem, "in a row")
	})
	t.Run("it comes back", func(t *testing.T) {
		bad, b, next, refused := begin(t, 500*time.Millisecond)
		require.Eventually(t, func() bool { return b.Servers()[0].Healthy }, patience, time.Millisecond, "it is tried again")
		require.Eventually(t, func() bool { next(); return len(bad.Posted()) > 2*failuresInARow }, patience, time.Millisecond)
		require.Equal(t, failuresInARow, *refused)
	})
}

// TestBreakerCountsServersFaults: neither what a prompt is to blame for, nor a call that was given up, speaks against a server.
func TestBreakerCountsServersFaults(t *testing.T) {
	f := setup(t, nil)
	f.s.FailNode("EmptyImage", "ValueError", "no")
	for i := range failuresInARow + 1 {
		r := f.ends(f.run(f.prompt(solid(i)), nil))
		errorOf(t, r.err, comfy.NodeFailed)
		f.s.FailNode("EmptyImage", "ValueError", "no")
	}
	require.True(t, f.b.Servers()[0].Healthy)
}

// tripped is a backend whose one server rests, until it may be tried again.
func tripped(t *testing.T) *fixture {
	f := setup(t, func(_ *Options, tm *timing) { tm.rest = 5 * time.Second })
	for range failuresInARow {
		f.s.AnswerPost(503, "not now")
		errorOf(t, f.ends(f.run(f.prompt(solid(1)), nil)).err, comfy.BackendUnavailable)
	}
	require.False(t, f.b.Servers()[0].Healthy)
	require.Eventually(t, func() bool { return f.b.Servers()[0].Healthy }, patience, time.Millisecond, "it may be tried again")
	return f
}

// TestTrialThatSaysNothing: one that was given up, or canceled, is followed by another; the server does not rest for ever.
func TestTrialThatSaysNothing(t *testing.T) {
	f := tripped(t)
	f.b.servers[0].t.absent = time.Hour // it is not lost before it is given up
	gate := f.s.LatePost()              // nothing runs yet
	ctx, leave := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() {
		_, err := f.b.Run(ctx, f.prompt(solid(2)), nil, f.rec)
		end <- err
	}()
	gate.Reached()
	require.False(t, f.b.Servers()[0].Healthy, "it is being tried")
	leave()
	gate.Open()
	require.ErrorIs(t, <-end, context.Canceled)
	require.True(t, f.b.Servers()[0].Healthy)
	f.succeeds(f.run(f.prompt(solid(3)), nil))
}

// TestTrialThatRuns lets others in as soon as it runs: its end may be half an hour away.
func TestTrialThatRuns(t *testing.T) {
	f := tripped(t)
	gate := f.s.Hold("SaveImage")
	first := f.run(f.prompt(solid(2)), nil)
	gate.Reached()
	require.Eventually(t, func() bool { return f.b.Servers()[0].Healthy }, patience, time.Millisecond)
	second := f.run(f.prompt(solid(3)), nil)
	gate.Open()
	f.succeeds(first)
	f.succeeds(second)
}
