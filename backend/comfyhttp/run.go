package comfyhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/errgroup"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/logs"
)

// transfers is how many files of a prompt are handled at once.
const transfers = 4

// run is one call of Run.
type run struct {
	b     *Backend
	s     *server
	p     *backend.Prompt
	h     backend.Handle
	rec   backend.Recorder
	log   logrus.FieldLogger
	plan  *comfyui.Plan
	track *comfyui.Tracker
	sock  *socket

	frames  *frames
	blocked *comfyui.Note // a node's own message that its output is blocked, which the history does not keep

	posted   bool // ComfyUI has taken the prompt, or may have
	started  bool
	over     bool // ComfyUI has said that the history is written
	deaf     bool // the present socket has not spoken about our prompt
	upSince  time.Time
	linked   bool // a socket is open
	lived    bool // the process that has taken the prompt has answered ever since
	lastSign time.Time
	told     time.Time // when the recorder was last told of progress

	failing   time.Time // since when the server has not answered
	refusing  time.Time // since when it has refused
	absent    bool      // the last look found the prompt nowhere
	still     bool      // and nothing running
	queued    int       // the length of the queue, as last heard
	idle      idleness
	queueAt   time.Time // when the queue is to be looked at
	lastQueue *queueState
	lastSeen  string // what the queue looked like
	trial     func() // is told that the prompt runs
	// gone is the error of a prompt that is nowhere.
	gone func() *backend.Error
}

// Run implements [backend.Backend]. When ctx ends it returns an error that unwraps to the context's.
func (b *Backend) Run(ctx context.Context, p *backend.Prompt, h *backend.Handle, rec backend.Recorder) (_ *backend.Outcome, err error) {
	defer func() { err = comfyui.OwnNames(p, err) }()
	if h != nil {
		return b.attach(ctx, p, *h, rec)
	}
	b.firstLook(ctx)
	s, ended, err := b.choose(ctx, p)
	if err != nil {
		return nil, err
	}
	var once sync.Once
	defer func() { once.Do(func() { ended(err) }) }()
	defer b.leave(s)
	r := b.newRun(ctx, s, p, backend.Handle{Pool: b.pool.Name, Server: s.name, PromptID: p.ID, JobID: p.JobID, Submission: p.Submission}, rec)
	r.trial = func() { // it runs: the server is well enough for others, which need not wait for the end
		if s.breaker.State() == gobreaker.StateHalfOpen {
			once.Do(func() { ended(nil) })
		}
	}
	paths := map[string]string{}
	for _, in := range p.Inputs {
		paths[in.Name] = comfyui.InputPath(p.JobID, in)
		r.h.Inputs = append(r.h.Inputs, paths[in.Name])
	}
	defer r.listen(ctx)() // opens while the handle is on its way
	if err := rec.Handle(ctx, r.h); err != nil {
		return nil, r.left(ctx, &backend.Error{Code: comfy.Internal, Message: "the prompt's handle could not be recorded", Cause: err})
	}
	doubtful, err := r.submit(ctx, paths)
	if err != nil {
		return nil, r.left(ctx, err)
	}
	return r.follow(ctx, doubtful)
}

// attach goes on with a prompt of an earlier call.
func (b *Backend) attach(ctx context.Context, p *backend.Prompt, h backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
	s, err := b.holder(ctx, p, &h, rec)
	if err != nil {
		return nil, err
	}
	b.enter(s)
	defer b.leave(s)
	r := b.newRun(ctx, s, p, h, rec)
	r.frames.gap = true
	defer r.listen(ctx)()
	return r.follow(ctx, true)
}

func (b *Backend) newRun(ctx context.Context, s *server, p *backend.Prompt, h backend.Handle, rec backend.Recorder) *run {
	cat, _ := s.known()
	pl := comfyui.PlanOf(cat, p.Graph)
	r := &run{b: b, s: s, p: p, h: h, rec: rec, plan: pl, track: comfyui.NewTracker(pl), frames: newFrames(), trial: func() {},
		log: logs.In(ctx, b.log).WithFields(logrus.Fields{logs.CallID: p.JobID, logs.Backend: b.pool.Name, "prompt_id": h.PromptID, "server": s.name})}
	r.gone = func() *backend.Error {
		return &backend.Error{Code: comfy.BackendLost, Ran: r.started, Message: "ComfyUI has forgotten the prompt; most likely it was restarted"}
	}
	return r
}

// listen opens the socket and returns what closes it.
func (r *run) listen(ctx context.Context) func() {
	ctx, cancel := context.WithCancel(ctx)
	r.sock = r.s.openSocket(ctx, r.h.PromptID, func(node string) bool { return r.plan.Sockets[node] })
	return func() {
		cancel()
		r.sock.close()
	}
}

// left replaces the error of a call that failed because its context ended.
func (r *run) left(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		gone := backend.Detached(ctx)
		gone.Unsent = !r.posted
		return gone
	}
	var be *backend.Error
	if errors.As(err, &be) {
		return err
	}
	return &backend.Error{Code: comfy.Internal, Message: "the prompt could not be handed over", Cause: err}
}

// submit sends the inputs and posts the prompt. Doubtful says that nobody knows whether ComfyUI has taken it.
func (r *run) submit(ctx context.Context, paths map[string]string) (doubtful bool, err error) {
	if err := r.sendInputs(ctx, paths); err != nil {
		return false, r.clean(ctx, err)
	}
	body, err := comfyui.Body(r.p, r.plan, paths, r.b.o.Previews)
	if err != nil {
		return false, r.clean(ctx, err)
	}
	ready := time.NewTimer(r.s.t.socketReady)
	defer ready.Stop()
	// Without a socket at the start, frames and progress of a short prompt would be missed.
	select {
	case <-r.sock.ready:
	case <-ready.C:
		r.frames.gap = true
	case <-ctx.Done():
	}
	if ctx.Err() != nil { // whatever came first: the socket ends with it
		return false, r.clean(ctx, backend.Detached(ctx))
	}
	r.forgetStatus()
	// A post that was cut off may still be queued, after a cancel has looked for it. It is short: let it end.
	data, status, err := r.s.exchange(context.WithoutCancel(ctx), r.s.t.post, http.MethodPost, "/prompt", body)
	var ce *callError
	errors.As(err, &ce)
	switch {
	case err == nil:
		return r.accepted(ctx, data)
	case ce == nil:
		return false, r.clean(ctx, err)
	case ce.unsent:
		r.s.down(ctx, err)
		return false, r.clean(ctx, r.unavailable(err))
	case status == http.StatusBadRequest:
		a, err := comfyui.ParseAnswer(data)
		if err != nil {
			a = &comfyui.Answer{Error: &comfyui.Refusal{Message: "it answered 400 and no reason that can be read"}}
		}
		return false, r.clean(ctx, comfyui.Refused(r.p.Graph, a))
	case status == http.StatusRequestEntityTooLarge:
		return false, r.clean(ctx, backend.Errorf(comfy.InvalidWorkflow, "the workflow (%d bytes) is larger than this ComfyUI takes; raise its --max-upload-size", len(body)))
	case status == http.StatusUnauthorized || status == http.StatusForbidden || (status >= 300 && status < 400) || status == http.StatusNotFound:
		return false, r.clean(ctx, r.unavailable(err))
	}
	// A 5xx, a timeout or a broken connection: ComfyUI may have it all the same.
	cause := err
	r.log.WithError(cause).Warn("the post of a prompt came to no clear end; looking for it")
	r.gone = func() *backend.Error {
		if status >= http.StatusInternalServerError {
			return r.unavailable(cause)
		}
		return &backend.Error{Code: comfy.BackendLost, Ran: r.started, Message: "the connection to ComfyUI broke while the prompt was handed over, and ComfyUI does not have it", Cause: cause}
	}
	return true, nil
}

// forgetStatus passes over what the socket said about the queue before the prompt was in it.
func (r *run) forgetStatus() {
	for {
		select {
		case e, ok := <-r.sock.events:
			if !ok {
				return
			}
			if e.kind == "up" || e.kind == "down" {
				r.linkChanged(e.kind == "up")
			}
		default:
			return
		}
	}
}

func (r *run) unavailable(err error) *backend.Error {
	return &backend.Error{Code: comfy.BackendUnavailable, Message: fmt.Sprintf("ComfyUI at %s did not take the prompt: %v", r.s.name, err), Cause: err}
}

// accepted reads the answer to a prompt that ComfyUI has queued. It queues one whose outputs it takes only in part, and
// would drop the others without a word: that is an error.
func (r *run) accepted(ctx context.Context, data []byte) (doubtful bool, err error) {
	r.posted = true
	a, err := comfyui.ParseAnswer(data)
	if err != nil || len(a.NodeErrors) == 0 {
		r.lived = err == nil
		return err != nil, nil
	}
	giveUp, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.s.t.giveUp)
	defer cancel()
	if err := r.s.stop(giveUp, r.h.PromptID); err != nil {
		r.log.WithError(err).Warn("a prompt that ComfyUI takes only in part could not be stopped")
	}
	return false, r.clean(ctx, comfyui.Refused(r.p.Graph, a))
}

// sendInputs uploads the files, and changes paths where ComfyUI has put one elsewhere.
func (r *run) sendInputs(ctx context.Context, paths map[string]string) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	got := make([]string, len(r.p.Inputs))
	for i, in := range r.p.Inputs {
		group.Go(func() (err error) {
			got[i], err = r.s.upload(gctx, paths[in.Name], in)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	moved := false
	for i, in := range r.p.Inputs {
		if got[i] != paths[in.Name] {
			moved, paths[in.Name], r.h.Inputs[i] = true, got[i], got[i]
		}
	}
	if moved {
		if err := r.rec.Handle(ctx, r.h); err != nil {
			return &backend.Error{Code: comfy.Internal, Message: "the prompt's handle could not be recorded", Cause: err}
		}
	}
	return nil
}

// clean removes the inputs of a prompt that was surely not taken, because its handle may be forgotten next.
func (r *run) clean(ctx context.Context, err error) error {
	if len(r.h.Inputs) == 0 {
		return err
	}
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.s.t.giveUp)
	defer cancel()
	if e := r.b.removeInputs(c, r.s, r.h); e != nil {
		r.log.WithError(e).Debug("inputs left behind")
	}
	return err
}
