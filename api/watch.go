package api

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// longPoll is how long Temporal is trusted to tell of an end: its server drops some of these messages (two changes
	// close together, seen with 1.32.1), and asks again by itself only after 20 s.
	longPoll = 5 * time.Second
	// maxWatches bounds the long polls at Temporal; jobs above are looked at every glance by those who wait for them. A
	// frontend of Temporal grants a namespace 1,200 of them (frontend.namespaceCount), which two replicas of the API share with
	// all who read a result, and refuses what is above.
	maxWatches = 512
	glance     = 2 * time.Second
	// watchIdle is how long a job is watched for pollers that have stopped polling.
	watchIdle = 2 * time.Second
)

// watches knows of ends as they happen: one long poll at Temporal for each open job that somebody waits for, or polls
// more often than its status is read anew.
type watches struct {
	s     *Server
	mu    sync.Mutex
	byRun map[string]*watch
}

// watch is one job that is watched.
type watch struct {
	over    chan struct{} // closed when the job is read anew: it has ended, or nobody is interested any more
	asked   atomic.Int64  // when somebody was last, in nanoseconds
	waiting atomic.Int64  // how many wait right now
}

func newWatches(s *Server) *watches { return &watches{s: s, byRun: map[string]*watch{}} }

// of watches an open job from now on. Nil means that too many are watched.
func (w *watches) of(j *job) *watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	one, ok := w.byRun[j.runID]
	if !ok {
		if len(w.byRun) >= maxWatches || w.s.draining.Err() != nil {
			return nil
		}
		one = &watch{over: make(chan struct{})}
		w.byRun[j.runID] = one
		w.s.background.Go(func() { w.follow(j, one) })
	}
	one.asked.Store(time.Now().UnixNano())
	return one
}

// follow ends with the job, or when nobody is interested any more.
func (w *watches) follow(j *job, one *watch) {
	defer close(one.over)
	for w.s.draining.Err() == nil {
		// Canceled in time rather than given a deadline: Temporal ends a long poll a second before the
		// caller's deadline, and in that second the SDK would ask again and again without a pause.
		slice, done := context.WithCancel(w.s.draining)
		timer := time.AfterFunc(w.s.patience.poll, done)
		end := w.s.outcome(slice, j.id, j.runID)
		early := slice.Err() == nil
		timer.Stop()
		done()
		if !end.known() {
			end = nil // a Temporal that does not answer shows when the job is read
		}
		now, err := w.s.endedJob(j.id, j.tenant, end)
		if w.leave(j.runID, one, err == nil && now.ended() || err != nil && asError(err).Code == CodeNotFound) {
			return
		}
		if early { // Temporal had a word of its own, such as that it is busy
			select {
			case <-w.s.draining.Done():
			case <-time.After(openFor):
			}
		}
	}
	w.leave(j.runID, one, true)
}

// leave ends a watch whose job is over, or that nobody wants; whoever comes later begins another.
func (w *watches) leave(runID string, one *watch, over bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	wanted := one.waiting.Load() > 0 || time.Since(time.Unix(0, one.asked.Load())) < watchIdle
	if wanted && !over {
		return false
	}
	delete(w.byRun, runID)
	return true
}

// await holds until the job ends, the time is over or the server stops. That the client has left shows only when the
// answer is written.
func (w *watches) await(j *job, wait time.Duration) {
	ctx, cancel := context.WithTimeout(w.s.draining, wait)
	defer cancel()
	for ctx.Err() == nil {
		if one := w.of(j); one != nil {
			one.waiting.Add(1)
			select {
			case <-one.over:
			case <-ctx.Done():
			}
			one.waiting.Add(-1)
		} else {
			select {
			case <-time.After(glance):
			case <-ctx.Done():
			}
		}
		now, err := w.s.job(j.id, j.tenant)
		if err == nil && (now.ended() || now.runID != j.runID) || err != nil && asError(err).Code == CodeNotFound {
			return
		}
	}
}
