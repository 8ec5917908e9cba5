package comfyhttp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/comfy"
)

// follow waits for the end of a prompt that has been posted, or that may have been.
func (r *run) follow(ctx context.Context, doubtful bool) (*backend.Outcome, error) {
	t := r.s.t
	now := time.Now()
	r.posted, r.lastSign = true, now
	r.queueAt = now.Add(t.queueQuiet)
	if !r.linked {
		r.queueAt = now.Add(t.queueBlind)
	}
	wait := t.pollFirst
	poll := time.NewTimer(wait)
	defer poll.Stop()
	tell := time.NewTicker(t.progress)
	defer tell.Stop()
	if doubtful {
		r.queueAt = now
		poll.Reset(0)
	}
	soon := func(d time.Duration) { wait = d; poll.Reset(d) }
	for {
		select {
		case <-ctx.Done():
			return nil, backend.Detached(ctx)
		case <-tell.C:
			r.tell()
		case e, ok := <-r.sock.events:
			if !ok { // only once ctx has ended
				return nil, backend.Detached(ctx)
			}
			if err := r.event(ctx, e); err != nil {
				return nil, r.abandon(ctx, r.left(ctx, err))
			}
			switch {
			case r.over:
				soon(0)
			case e.kind == "execution_success", e.kind == "execution_error", e.kind == "execution_interrupted", e.kind == "down":
				soon(t.pollFirst) // the history is written a little later
			}
		case <-poll.C:
			entry, err := r.look(ctx)
			if err != nil {
				return nil, r.left(ctx, err)
			}
			if entry != nil {
				return r.finish(ctx, entry)
			}
			if err := r.stalled(ctx); err != nil {
				return nil, err
			}
			most := t.pollBlind
			if r.linked && r.failing.IsZero() {
				most = t.pollMost
			}
			wait = min(2*max(wait, t.pollFirst), most)
			if r.absent {
				wait = t.absent
			}
			poll.Reset(wait)
		}
	}
}

// abandon stops a prompt that nobody goes on with, because what it has made could not be kept, and returns why. One whose
// context has ended is others' business.
func (r *run) abandon(ctx context.Context, why error) error {
	if ctx.Err() != nil {
		return why
	}
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), r.s.t.giveUp)
	defer done()
	if err := r.s.stop(ctx, r.h.PromptID); err != nil {
		r.log.WithError(err).Warn("a prompt whose output could not be stored could not be stopped")
	}
	return why
}

func (r *run) tell() {
	if u, ok := r.track.Update(); ok {
		r.told = time.Now()
		r.rec.Progress(u)
	}
}

// sign notes that the prompt, or the queue before it, has moved.
func (r *run) sign() {
	r.lastSign = time.Now()
	r.s.alive()
	r.queueAt = r.lastSign.Add(r.s.t.queueQuiet)
}

// event takes one event.
func (r *run) event(ctx context.Context, e event) error {
	switch e.kind {
	case "up", "down":
		r.linkChanged(e.kind == "up")
	case "status":
		r.remaining(&e.note)
	case "feature_flags":
	case "frame":
		r.runs()
		r.sign()
		return r.frames.store(ctx, r.rec, e.frame)
	case "preview":
		r.runs()
		r.rec.Preview(backend.Preview{NodeID: e.frame.node, ContentType: e.frame.contentType(), Data: e.frame.data})
	default:
		r.deaf = false
		r.runs()
		r.sign()
		r.track.Event(e.kind, &e.note)
		if e.kind == "progress" {
			r.frames.tick(&e.note)
		}
		if e.kind == "execution_error" && e.note.Exception == "ExecutionBlocked" {
			n := e.note
			r.blocked = &n
		}
		r.over = r.over || (e.kind == "executing" && e.note.Node == nil)
		if time.Since(r.told) >= r.s.t.progress {
			r.tell() // at once, where that is not too often
		}
	}
	return nil
}

// linkChanged notes that the socket has opened or ended.
func (r *run) linkChanged(up bool) {
	r.linked = up
	if up {
		r.deaf, r.upSince = true, time.Now()
		return
	}
	r.frames.gap, r.lived, r.idle = true, false, idleness{}
	// Never later: the socket may try, and fail, more often than that.
	if soon := time.Now().Add(r.s.t.queueBlind); soon.Before(r.queueAt) {
		r.queueAt = soon
	}
}

func (r *run) runs() {
	if !r.started {
		r.started = true
		r.trial()
		r.track.Place(-1)
		r.tell()
	}
}

// remaining reads the length of ComfyUI's queue. The prompt was its last one when it was posted, so its place is at
// most what is left without the running one and itself.
func (r *run) remaining(n *comfyui.Note) {
	if n.Status == nil || r.started {
		return
	}
	left := n.Status.Exec.Remaining
	if left < r.queued { // it moves; others may put more into it all the time
		r.idle = idleness{}
	}
	r.queued = left
	if left == 0 { // it has ended, or somebody has taken it out
		r.queueAt, r.lived = time.Time{}, false
		return
	}
	place := max(left-2, 0)
	if at := r.track.Position(); at == nil || place < *at {
		r.track.Place(place)
	}
}

// look asks for the prompt: in the history, and in the queue when there has been no sign of it.
func (r *run) look(ctx context.Context) (*comfyui.History, error) {
	asked := time.Now()
	entry, err := r.s.history(ctx, r.h.PromptID)
	if err != nil {
		return nil, r.unanswered(ctx, asked, err)
	}
	r.failing, r.refusing = time.Time{}, time.Time{}
	if entry != nil || time.Now().Before(r.queueAt) {
		return entry, nil
	}
	q, err := r.s.queue(ctx)
	if err != nil {
		return nil, r.unanswered(ctx, asked, err)
	}
	running, position := q.find(r.h.PromptID)
	if running || position >= 0 {
		r.present(q, running, position)
		return nil, nil
	}
	// Between the two looks it may have ended.
	if entry, err = r.s.history(ctx, r.h.PromptID); err != nil || entry != nil {
		if err != nil {
			err = r.unanswered(ctx, asked, err)
		}
		return entry, err
	}
	if !r.absent {
		r.absent, r.still = true, len(q.Running) == 0
		r.queueAt = time.Time{}
		return nil, nil
	}
	// It was not there twice. Should a post of it still be under way, it must not run after we have said so.
	_ = r.s.dequeue(ctx, r.h.PromptID)
	gone := r.gone()
	if r.lived && r.still && len(q.Running) == 0 {
		// Had somebody taken it out, ComfyUI would have said that its queue is empty, or would run another. A prompt that ends the
		// execution thread while that takes it from the queue would do so again, and again.
		gone.Ran, gone.Message = true, "ComfyUI has lost the prompt although it was not restarted; most likely its execution thread has ended with it"
	}
	return nil, r.clean(ctx, gone)
}

// present notes what the queue says about the prompt.
func (r *run) present(q *queueState, running bool, position int) {
	r.absent = false
	r.lastQueue = q
	seen := fmt.Sprint(running, position, q.runningIDs())
	if running {
		r.runs()
		if r.deaf && r.linked && len(r.plan.Sockets) == 0 && time.Since(r.upSince) > r.s.t.deaf {
			r.sock.reopen()
		}
		seen = "running"
	} else {
		r.track.Place(position)
	}
	r.idle.look(q)
	if seen != r.lastSeen {
		r.lastSeen = seen
		r.sign()
	}
	every := r.s.t.queueQuiet
	if !r.linked {
		every = r.s.t.queueBlind
	}
	r.queueAt = time.Now().Add(every)
}

// unanswered counts how long the server has not answered, and gives its prompt up in the end.
func (r *run) unanswered(ctx context.Context, asked time.Time, err error) error {
	if ctx.Err() != nil {
		return backend.Detached(ctx)
	}
	now := time.Now()
	r.lived, r.idle = false, idleness{}
	if r.failing.IsZero() {
		r.failing = asked
	}
	var ce *callError
	if errors.As(err, &ce) && ce.refused {
		if r.refusing.IsZero() {
			r.refusing = asked
		}
	} else {
		r.refusing = time.Time{}
	}
	r.log.WithError(err).Debug("no answer about the prompt")
	refusedFor, failedFor := now.Sub(r.refusing), now.Sub(r.failing)
	if (!r.refusing.IsZero() && refusedFor >= r.s.t.refused) || failedFor >= r.s.t.hung {
		return &backend.Error{Code: comfy.BackendLost, Ran: r.started, Cause: err,
			Message: fmt.Sprintf("the ComfyUI that had the prompt has not answered for %s", failedFor.Round(time.Second))}
	}
	return nil
}
