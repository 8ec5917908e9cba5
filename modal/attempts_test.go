package modal

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakemodal"
)

// bare is the handle of an attempt that died before it knew its call.
func (w *world) bare(p *backend.Prompt, server string) *backend.Handle {
	return &backend.Handle{Pool: "modal", Server: server, PromptID: p.ID, JobID: p.JobID, Submission: 1}
}

// TestReattach: another worker goes on with a call that runs, by its ID, and nothing runs twice.
func TestReattach(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	p, let := w.held(script{"size": 9000})
	ctx, leave := context.WithCancel(w.ctx())
	end := w.run(ctx, p, nil)
	id := w.running()
	leave()
	require.ErrorIs(t, w.fails(end, comfy.Internal), context.Canceled)
	handles := w.rec.Handles()
	require.Len(t, handles, 2)
	require.Empty(t, handles[0].CallID)
	require.Equal(t, "modal/"+testApp, handles[0].Server)

	b, rec := w.another(), backendtest.NewRecorder()
	out := w.goesOn(b, p, &handles[1], rec, let) // at once: it has not even found the app yet
	require.Empty(t, rec.Handles())
	require.Equal(t, id, out.Handle.CallID)
	_, err := w.read(b, out)
	require.NoError(t, err)
	require.Equal(t, 1, w.executions())
}

// goesOn carries on with a prompt that nobody follows, and lets its call end once somebody listens to it again.
func (w *world) goesOn(b *Backend, p *backend.Prompt, h *backend.Handle, rec backend.Recorder, let func()) *backend.Outcome {
	w.Helper()
	asked := w.m.Count("QueueGet")
	end := runOn(w.ctx(), b, p, h, rec)
	require.Eventually(w, func() bool { return w.m.Count("QueueGet") > asked }, patience, 10*time.Millisecond)
	let()
	return w.succeeds(end)
}

// TestReattachWithoutCallID: a worker that died between Spawn and the handle has lost nothing.
func TestReattachWithoutCallID(t *testing.T) {
	for _, server := range []string{"modal/" + testApp, ""} {
		t.Run(server, func(t *testing.T) {
			w := newWorld(t, nil)
			w.ready(w.b)
			p, let := w.held(nil)
			ctx, leave := context.WithCancel(w.ctx())
			end := w.run(ctx, p, nil)
			id := w.running()
			leave()
			w.ends(end)
			b, rec := w.another(), backendtest.NewRecorder()
			out := w.goesOn(b, p, w.bare(p, server), rec, let)
			require.Len(t, rec.Handles(), 1)
			require.Equal(t, id, rec.Handles()[0].CallID)
			require.Equal(t, id, out.Handle.CallID)
			require.Equal(t, 1, w.executions())
		})
	}
}

// TestBarred: once it was said that nobody has a prompt, a call of it that arrives late does nothing.
func TestBarred(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	p := w.prompt(script{"sleep": 30})
	e := w.fails(w.run(w.ctx(), p, w.bare(p, "modal/"+testApp)), comfy.BackendLost)
	require.False(t, e.Ran)
	require.Empty(t, w.rec.Handles())
	e = w.fails(w.run(w.ctx(), p, nil), comfy.BackendLost)
	require.False(t, e.Ran)
	require.Contains(t, e.Message, "given up before")

	// Where the server is not known, the caller will run it itself: it is not barred.
	p = w.prompt(nil)
	require.False(t, w.fails(w.run(w.ctx(), p, w.bare(p, "")), comfy.BackendLost).Ran)
	w.succeeds(w.run(w.ctx(), p, nil))

	e = w.fails(w.run(w.ctx(), p, w.bare(p, "modal/another")), comfy.BackendLost)
	require.Contains(t, e.Message, "the app another that had the prompt is not configured any more")
}

// TestDuplicate: two calls for one prompt run it once, and both workers get its outcome.
func TestDuplicate(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	p, let := w.held(nil)
	first := w.run(w.ctx(), p, nil)
	id := w.running()
	rec := backendtest.NewRecorder()
	follows := runOn(w.ctx(), w.another2(), p, nil, rec)
	require.Eventually(t, func() bool {
		calls := w.calls("run")
		return len(calls) == 2 && calls[1].State == fakemodal.Done
	}, patience, 10*time.Millisecond, "the second call does not leave the prompt to the first")
	let()
	second := w.succeeds(follows)
	require.Equal(t, id, second.Handle.CallID)
	handles := rec.Handles()
	require.Equal(t, id, handles[len(handles)-1].CallID, "the call that is followed is durable")
	require.Equal(t, second.Files, w.succeeds(first).Files)
}

// another2 is a second worker that is ready.
func (w *world) another2() *Backend {
	b := w.another()
	w.ready(b)
	return b
}

// TestHandleCannotBeRecorded: before the spawn nothing runs, after it what runs is stopped.
func TestHandleCannotBeRecorded(t *testing.T) {
	w := newWorld(t, nil, func(_ *fakemodal.Server, _ *Options, tm *timing) { tm.giveUp = patience })
	w.ready(w.b)
	_, err := w.b.Run(w.ctx(), w.prompt(script{"sleep": long}), nil, &failing{Recorder: w.rec, from: 2})
	errorOf(t, err, comfy.Internal)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	calls := w.calls("run")
	require.Len(t, calls, 1)
	require.Equal(t, "terminated", calls[0].Outcome)
}

// failing is a recorder that fails from the n-th handle on.
type failing struct {
	*backendtest.Recorder
	from, n int
}

func (f *failing) Handle(ctx context.Context, h backend.Handle) error {
	if f.n++; f.n >= f.from {
		return context.DeadlineExceeded
	}
	return f.Recorder.Handle(ctx, h)
}

// TestSpawnInDoubt: Modal has taken the call and its answer is lost. The ledger tells, and it runs once.
func TestSpawnInDoubt(t *testing.T) {
	w := newWorld(t, nil, func(_ *fakemodal.Server, _ *Options, tm *timing) { tm.spawn = 3 * time.Second })
	w.ready(w.b)
	held := w.m.HoldAnswer(1, "FunctionMap")
	p := w.prompt(script{"sleep": 3})
	end := w.run(w.ctx(), p, nil)
	require.NoError(t, held.Wait(w.ctx()))
	out := w.succeeds(end)
	require.Equal(t, out.Handle.CallID, w.call())
	require.Equal(t, 1, w.executions())
}

// TestSpawnLost: the request itself is lost, so nobody has it, and nobody ever will.
func TestSpawnLost(t *testing.T) {
	w := newWorld(t, nil, func(_ *fakemodal.Server, _ *Options, tm *timing) { tm.spawn = 3 * time.Second })
	w.ready(w.b)
	fault := w.m.Inject(fakemodal.Rule{Methods: []string{"FunctionMap"}, From: fakemodal.Clients, Times: 1, Hang: true})
	p := w.prompt(nil)
	e := w.fails(w.run(w.ctx(), p, nil), comfy.BackendLost)
	require.False(t, e.Ran)
	require.Equal(t, 1, fault.Fired())
	require.Empty(t, w.calls("run"))
	w.fails(w.run(w.ctx(), p, nil), comfy.BackendLost) // barred
}

// TestSpawnRefused: where Modal says no, nothing was handed over and the job waits.
func TestSpawnRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	fault := w.m.Throttle(0, 50*time.Millisecond)
	e := w.fails(w.run(w.ctx(), w.prompt(nil), nil), comfy.BackendUnavailable)
	require.False(t, e.Ran)
	require.Contains(t, e.Message, "takes no more at the moment")
	fault.Clear()
	fault = w.m.RefuseToken()
	w.fails(w.run(w.ctx(), w.prompt(nil), nil), comfy.BackendUnavailable)
	fault.Clear()
	w.ready(w.b)
	fault = w.m.Unavailable()
	require.NoError(t, fault.Wait(w.ctx()))
	end := w.run(w.ctx(), w.prompt(nil), nil)
	// Was the request on its way when the connection broke? Then the ledger must tell, as soon as Modal can be asked again.
	require.Eventually(t, func() bool { return len(end) > 0 || w.said("handing a prompt to Modal came to no clear end") }, patience, 10*time.Millisecond)
	fault.Clear()
	r := w.ends(end)
	var lost *backend.Error
	require.ErrorAs(t, r.err, &lost)
	require.False(t, lost.Ran)
	require.Contains(t, []comfy.Code{comfy.BackendUnavailable, comfy.BackendLost}, lost.Code)
	w.ready(w.b)
	require.Empty(t, w.calls("run"))
	w.succeeds(w.run(w.ctx(), w.prompt(nil), nil))
}

// TestCancel of a call that waits and of one that runs, each by its handle and by the prompt alone.
func TestCancel(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	busy := []chan result{w.run(w.ctx(), w.prompt(script{"sleep": long}), nil)}
	first := w.running()
	w.rec = backendtest.NewRecorder()
	busy = append(busy, w.run(w.ctx(), w.prompt(script{"sleep": long}), nil))
	w.running()
	w.rec = backendtest.NewRecorder()
	waits := w.prompt(nil)
	third := w.run(w.ctx(), waits, nil) // both containers are busy
	queued := w.call()
	call, err := w.m.Call(queued)
	require.NoError(t, err)
	require.Equal(t, fakemodal.Queued, call.State)

	require.NoError(t, w.b.Cancel(w.ctx(), *w.bare(waits, w.b.name)), "nobody has claimed it, and nobody will")
	require.NoError(t, w.b.Cancel(w.ctx(), backend.Handle{PromptID: waits.ID, CallID: queued}))
	e := w.fails(third, comfy.Canceled)
	require.False(t, e.Ran)
	require.False(t, w.rec.Updates()[len(w.rec.Updates())-1].Running)

	require.NoError(t, w.b.Cancel(w.ctx(), backend.Handle{CallID: first}))
	require.True(t, w.fails(busy[0], comfy.Canceled).Ran)
	require.NoError(t, w.b.Cancel(w.ctx(), backend.Handle{CallID: first}), "twice")
	require.NoError(t, w.b.Cancel(w.ctx(), backend.Handle{CallID: "fc-unknown"}))

	h := w.calls("run")[1]
	ctx, give := context.WithTimeout(w.ctx(), 100*time.Millisecond)
	defer give()
	away := w.m.Unavailable()
	errorOf(t, w.b.Cancel(ctx, backend.Handle{CallID: h.ID}), comfy.BackendUnavailable)
	away.Clear()
	require.NoError(t, w.b.Cancel(w.ctx(), backend.Handle{CallID: h.ID}))
	w.fails(busy[1], comfy.Canceled)
	require.Equal(t, 2, w.executions())
}

// TestCancelOfADeafCall: a container that does not stop its call is ended.
func TestCancelOfADeafCall(t *testing.T) {
	w := newWorld(t, func(o *fakemodal.Options) { o.CancelGrace = time.Hour }) // Modal does not end it by itself
	w.ready(w.b)
	end := w.run(w.ctx(), w.prompt(script{"sleep": long, "stubborn": true}), nil)
	id := w.running()
	began := time.Now()
	require.NoError(t, w.b.Cancel(w.ctx(), backend.Handle{CallID: id}))
	require.Greater(t, time.Since(began), w.b.t.terminate)
	require.Less(t, time.Since(began), time.Minute)
	w.fails(end, comfy.Canceled)
	w.ready(w.b)
	w.succeeds(w.run(w.ctx(), w.prompt(nil), nil))
}

// TestReleaseStopsWhatRunsOn: of a job that has ended nothing costs money any more.
func TestReleaseStopsWhatRunsOn(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	ctx, leave := context.WithCancel(w.ctx())
	end := w.run(ctx, w.prompt(script{"sleep": long}), nil)
	id := w.running()
	leave()
	require.ErrorIs(t, w.ends(end).err, context.Canceled)
	require.NoError(t, w.b.Release(w.ctx(), w.rec.Handles()[1], nil))
	c, err := w.m.Call(id)
	require.NoError(t, err)
	require.Equal(t, "terminated", c.Outcome)
}
