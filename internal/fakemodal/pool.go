package fakemodal

import (
	"slices"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
)

// Back-off between containers that crash (DOC: "crash-loop backoff"; the figures are a GUESS, and short).
const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// pool is the containers of one function, or of one variant of it, and the inputs that wait for them. s.mu guards it.
type pool struct {
	s         *Server
	id        string // the function's
	queue     []*call
	live      []*task
	failures  int // containers in a row that failed before they took an input
	notBefore time.Time
	timer     *time.Timer
}

// census counts a pool's containers.
type census struct{ alive, starting, idle, busy int }

// pool returns a function's pool. s.mu is held.
func (s *Server) pool(id string) *pool {
	p, ok := s.pools[id]
	if !ok {
		p = &pool{s: s, id: id}
		s.pools[id] = p
	}
	return p
}

func (p *pool) function(s *Server) *function { return s.tables.Functions[p.id] }

func (p *pool) census() census {
	var n census
	for _, t := range p.live {
		switch {
		case t.stopping && t.call == nil:
			continue // on its way out
		case !t.ready:
			n.starting++
		case t.call != nil:
			n.busy++
		default:
			n.idle++
		}
		n.alive++
	}
	return n
}

// kick starts the containers that the queue and min_containers call for. s.mu is held.
func (s *Server) kick(p *pool) {
	f := p.function(s)
	if s.closed || f == nil {
		return
	}
	if wait := time.Until(p.notBefore); wait > 0 {
		p.stop()
		p.timer = time.AfterFunc(wait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.kick(p)
		})
		return
	}
	n := p.census()
	need := max(len(p.queue)-n.idle-n.starting, f.minContainers()-n.alive)
	for room := f.maxContainers(s.opts.MaxContainers) - n.alive; need > 0 && room > 0; need, room = need-1, room-1 {
		s.startTask(p)
	}
}

// backOff makes the next container wait. s.mu is held.
func (p *pool) backOff() {
	p.failures++
	p.notBefore = time.Now().Add(min(firstBackoff<<min(p.failures-1, 10), maxBackoff))
}

func (p *pool) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

// retire lets the living containers end after what they run.
func (p *pool) retire() {
	for _, t := range p.live {
		t.stop("replaced by a newer version")
	}
}

func (p *pool) drop(c *call) {
	p.queue = slices.DeleteFunc(p.queue, func(x *call) bool { return x == c })
}

// failAll ends all inputs that wait (CODE: comment of GENERIC_STATUS_INIT_FAILURE, "Terminates the function and all
// remaining inputs").
func (s *Server) failAll(p *pool, r *pb.GenericResult) {
	p.failures = 0
	for _, c := range slices.Clone(p.queue) {
		s.finish(c, pb.GenericResult_builder{Status: initFailure, Exception: r.GetException(), Traceback: r.GetTraceback()}.Build(), nil)
	}
}

// taskEnded settles what a container leaves behind. s.mu is held.
func (s *Server) taskEnded(t *task, exitCode int) {
	p, c := t.pool, t.call
	t.ended, t.endedAt, t.exitCode = true, time.Now(), exitCode
	t.stopTimers()
	p.live = slices.DeleteFunc(p.live, func(x *task) bool { return x == t })
	s.opts.Log("container %s ended with %d: %s", t.id, exitCode, t.why)
	defer s.notify()
	if s.closed {
		return
	}
	switch {
	case c != nil && c.task == t && c.Canceled:
		s.finish(c, result(terminated, ""), nil)
	case c != nil && c.task == t:
		// DOC, guide/retries: "Modal will reschedule the container and any work it was currently assigned".
		p.backOff()
		c.detach("crashed")
		s.again(c)
	case t.taken != nil && !t.taken.Done:
		s.again(t.taken)
	case !t.ready && !t.stopping && !t.preempted:
		s.startFailed(t)
	}
	s.kick(p)
}

// again puts an input back to the head of its queue.
func (s *Server) again(c *call) {
	if err := s.keep(c); err != nil {
		s.opts.Log("%v", err)
	}
	p := s.pool(c.FunctionID)
	p.queue = slices.Insert(p.queue, 0, c)
}

func (s *Server) startFailed(t *task) {
	p := t.pool
	p.backOff()
	if n := s.opts.StartRetries; n < 0 || p.failures <= n {
		return
	}
	r := t.failed
	if r == nil {
		r = result(initFailure, t.why)
	}
	s.failAll(p, r)
}

// preempt takes a container away: SIGINT, and SIGKILL after the grace. Its input runs again in another one, by default
// when it has ended (DOC: "Runner terminated, in-progress inputs will be re-scheduled"). s.mu is held.
func (s *Server) preempt(t *task, why string) {
	t.preempted, t.stopping, t.why = true, true, why
	if c := t.call; c != nil && c.task == t {
		c.detach("preempted") // what it puts from now on does not count
		if t.taken = c; s.opts.PreemptOverlap {
			t.taken = nil
			s.again(c)
			s.kick(t.pool)
		}
	}
	t.interrupt()
	t.after(s.opts.PreemptGrace, t.kill)
}
