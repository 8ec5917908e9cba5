package api

import (
	"context"
	"errors"
	"sync"
	"time"
)

// failedFresh is how long what is away counts as away before it is asked again.
const failedFresh = time.Second

var errNoAnswerYet = errors.New("no answer yet")

// probe keeps the last answer to a question about something outside, so that a request need not wait for it. However
// many requests want to know, one question is under way at a time; it is asked only when somebody wants to know.
type probe struct {
	// ask must end with its context.
	ask   func(context.Context) error
	limit time.Duration // of one question
	// patience is how long a request waits for a question that takes long; then the answer before counts, unless it is
	// stale. 0 means to its end.
	patience time.Duration
	// fresh is the age from which on a good answer is renewed, a bad one is after failedFresh; stale is the age from which
	// on an answer says nothing any more.
	fresh, stale time.Duration

	mu    sync.Mutex
	at    time.Time // of the last answer's question; zero: nobody has asked
	err   error
	under chan struct{} // closed when the question under way has its answer; nil: none is
}

// last returns the last answer at once and has it renewed in the background; it waits only where there is none.
func (p *probe) last(s *Server) error {
	p.mu.Lock()
	none := p.at.IsZero() || time.Since(p.at) > p.stale
	var wait <-chan struct{}
	if p.old() {
		wait = p.start(s)
	}
	err := p.err
	p.mu.Unlock()
	if none {
		return p.wait(wait)
	}
	return err
}

// now returns an answer that is fresh, and waits for it where need be.
func (p *probe) now(s *Server) error {
	p.mu.Lock()
	if !p.old() {
		defer p.mu.Unlock()
		return p.err
	}
	wait := p.start(s)
	p.mu.Unlock()
	return p.wait(wait)
}

// again asks anew, however fresh the last answer is, and waits.
func (p *probe) again(s *Server) error {
	p.mu.Lock()
	wait := p.start(s)
	p.mu.Unlock()
	return p.wait(wait)
}

// old tells whether the answer has to be renewed. The caller holds mu.
func (p *probe) old() bool {
	age := time.Since(p.at)
	return p.at.IsZero() || age > p.fresh || p.err != nil && age > failedFresh
}

func (p *probe) wait(answered <-chan struct{}) error {
	var over <-chan time.Time
	if p.patience > 0 {
		timer := time.NewTimer(p.patience)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-answered:
	case <-over:
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.at.IsZero() || time.Since(p.at) > p.stale {
			return errNoAnswerYet
		}
		return p.err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// start asks, unless a question is under way. The caller holds mu.
func (p *probe) start(s *Server) <-chan struct{} {
	if p.under != nil {
		return p.under
	}
	answered := make(chan struct{})
	p.under = answered
	began := time.Now()
	s.background.Go(func() {
		ctx, cancel := context.WithTimeout(s.life, p.limit)
		defer cancel()
		err := p.ask(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.at, p.err, p.under = began, err, nil
		close(answered)
	})
	return answered
}
