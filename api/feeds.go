package api

import "sync"

// feeds are the jobs that somebody listens to: one watch of the end, one look at Temporal a second and one subscription
// at the worker for each of them, however many listen.
type feeds struct {
	s *Server

	mu      sync.Mutex
	byRun   map[string]*feed
	streams map[string]int // by tenant
}

func newFeeds(s *Server) *feeds {
	return &feeds{s: s, byRun: map[string]*feed{}, streams: map[string]int{}}
}

// join returns the feed of a job for one more who listens, and must leave it.
func (w *feeds) join(j *job) (*feed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if limit := w.s.opts.MaxEventStreamsPerTenant; w.streams[j.tenant] >= limit {
		return nil, failf(CodeRateLimited, "You have %d event streams open at this server, and a tenant may have %d at most (COMFYD_MAX_EVENT_STREAMS_PER_TENANT). Close some, or poll the status.", w.streams[j.tenant], limit)
	}
	f := w.byRun[j.runID]
	if f == nil {
		f = newFeed(w.s, j)
		if !j.ended() {
			w.byRun[j.runID] = f
			w.s.background.Go(f.run)
		}
	}
	w.streams[j.tenant]++
	f.listeners++
	return f, nil
}

// leave ends what join has begun.
func (w *feeds) leave(f *feed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.streams[f.tenant]--; w.streams[f.tenant] == 0 {
		delete(w.streams, f.tenant)
	}
	if f.listeners--; f.listeners == 0 {
		w.drop(f)
		close(f.quit)
	}
}

// over says that nothing comes from a feed any more: who comes later begins another.
func (w *feeds) over(f *feed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(f)
}

func (w *feeds) drop(f *feed) {
	if w.byRun[f.runID] == f {
		delete(w.byRun, f.runID)
	}
}

// EventStreams is how many clients listen to jobs right now.
func (s *Server) EventStreams() (n int) {
	s.feeds.mu.Lock()
	defer s.feeds.mu.Unlock()
	for _, of := range s.feeds.streams {
		n += of
	}
	return n
}
