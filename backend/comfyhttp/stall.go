package comfyhttp

import (
	"context"
	"fmt"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// idleness is for how long nothing has run although prompts wait, from the first look that saw it to the last. ComfyUI
// takes the next one at once: where it does not, its execution thread has ended, and it will run nothing any more.
type idleness struct{ first, last time.Time }

func (i idleness) lasted() time.Duration { return i.last.Sub(i.first) }

// look is a look at the queue.
func (i *idleness) look(q *queueState) {
	now := time.Now()
	if len(q.Running) > 0 {
		*i = idleness{}
		return
	}
	if i.first.IsZero() {
		i.first = now
	}
	i.last = now
}

// stalled ends a prompt that has shown no sign of life for too long. One that waits is judged by the queue before it,
// and by all our prompts on that server: where nothing moves, ComfyUI's execution thread is dead or stuck.
func (r *run) stalled(ctx context.Context) error {
	limit := r.p.StallTimeout
	if limit <= 0 {
		limit = r.s.t.stall
	}
	last := r.lastSign
	if life := r.s.lastLife(); !r.started && life.After(last) {
		last = life
	}
	dead := !r.started && (r.idle.lasted() >= r.s.t.idles || r.s.dead())
	if !dead && time.Since(last) < limit || !r.failing.IsZero() {
		return nil
	}
	if len(r.sock.events) > 0 {
		return nil // what has come and is not read yet may be a sign: after a pause of this process all of it
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.s.t.giveUp)
	defer cancel()
	e := &backend.Error{Code: comfy.Timeout, Ran: r.started}
	why := fmt.Sprintf("a prompt on it has shown no sign of life for %s", limit)
	stuck := []string{r.h.PromptID}
	if r.started {
		e.Message = fmt.Sprintf("the prompt showed no sign of life for %s", limit)
		if r.track.Current() != "" {
			e.NodeID = r.track.Current()
			e.Message += " in node " + r.track.Current()
		}
	} else {
		e.Message = fmt.Sprintf("the prompt waited in ComfyUI's queue, and nothing in that moved for %s", limit)
		why = fmt.Sprintf("nothing in its queue has moved for %s", limit)
		stuck = nil
		if r.lastQueue != nil {
			stuck = r.lastQueue.runningIDs()
		}
		if dead {
			e.Code, e.Message = comfy.BackendLost, "nothing runs in that ComfyUI although prompts wait there: its execution thread has ended, and it has to be restarted"
			why = "nothing runs although prompts wait: its execution thread has ended, and it has to be restarted"
		}
	}
	e.Cause = r.s.stop(stop, r.h.PromptID)
	r.s.putAside(why, stuck, dead)
	if r.b.o.OnStall != nil {
		r.b.o.OnStall(r.s.name, e)
	}
	return e
}
