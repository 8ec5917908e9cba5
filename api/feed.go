package api

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/live"
)

const (
	// tellEvery is how often at most those who listen are told of a change, but for the end.
	tellEvery = 250 * time.Millisecond
	// lookEvery is how old Temporal's view of a job may be that somebody listens to. What the worker says itself, where it
	// can be heard, is ahead of it.
	lookEvery = time.Second
	// lookSoon is when Temporal is asked after the worker has let go of a prompt: the workflow needs a moment.
	lookSoon = 50 * time.Millisecond
	// lastWord is for how long the last thing that a worker has said is ahead of what Temporal has from it.
	lastWord = 2 * time.Second
	// followAgain is the pause before a worker that could not be followed is tried again.
	followAgain = 5 * time.Second
)

// feed is what is known of one job, for all who listen to it. They take the newest of each kind, so that a slow one
// misses some and holds nothing up.
type feed struct {
	s                 *Server
	id, runID, tenant string
	listeners         int           // guarded by feeds
	quit              chan struct{} // closed when nobody listens any more

	mu      sync.Mutex
	now     moment
	changed chan struct{} // closed and replaced at each change

	// The rest is the goroutine's own.
	job     *job            // as Temporal knows it
	looked  chan look       // what Temporal has been asked, while it is
	more    bool            // it is to be asked once more
	watch   *watch          // of its end; nil where too many are watched
	word    *backend.Update // the worker's
	until   time.Time       // when its last word counts no more; zero: it is there
	shown   []byte          // what those who listen were told last
	told    time.Time
	held    bool       // there is more to tell when it is time
	address string     // of the worker that is followed, or was last
	lost    chan error // how following it has ended; nil: it is followed, or nobody was
	again   time.Time  // not before then
}

// look is what a question to Temporal has brought.
type look struct {
	job *job
	err error
}

// moment is what there is to be told.
type moment struct {
	status   comfy.Status
	statuses int // how many there have been
	preview  *backend.Preview
	previews int
	end      *job // the job, once it has ended
	gone     bool // nobody knows the job any more, or it is another one under its ID
}

func newFeed(s *Server, j *job) *feed {
	f := &feed{s: s, id: j.id, runID: j.runID, tenant: j.tenant, quit: make(chan struct{}), changed: make(chan struct{}), job: j}
	f.now.status, f.now.statuses = j.status, 1
	if j.ended() {
		f.now.end = j
	}
	f.shown, _ = json.Marshal(j.status) // should that fail, it is told once more
	return f
}

// state returns what there is, and what is closed at the next change.
func (f *feed) state() (moment, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now, f.changed
}

func (f *feed) change(how func(*moment)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(&f.now)
	close(f.changed)
	f.changed = make(chan struct{})
}

// run ends with the job, with the server, or when nobody listens any more.
func (f *feed) run() {
	ctx, cancel := context.WithCancel(f.s.draining)
	defer cancel()
	defer f.s.feeds.over(f)
	news := f.s.opts.Live.Subscribe(f.id)
	defer news.Close()
	defer f.unwatch()
	due, tell := time.NewTimer(lookEvery), time.NewTimer(tellEvery)
	defer due.Stop()
	defer tell.Stop()
	for {
		f.listen(ctx)
		var end <-chan struct{}
		if f.watch != nil {
			end = f.watch.over
		}
		select {
		case <-ctx.Done():
			return
		case <-f.quit:
			return
		case <-end:
			f.unwatch()
			f.look(f.s.freshJob)
		case <-due.C:
			f.look(f.s.job)
		case seen := <-f.looked:
			if f.saw(seen) {
				return
			}
			due.Reset(lookEvery)
		case <-news.C:
			if f.hear(news.Take()) {
				due.Reset(lookSoon)
			}
		case err := <-f.lost:
			f.lost, f.again = nil, time.Now().Add(followAgain)
			if err != nil && ctx.Err() == nil {
				f.s.log.WithError(err).Debug("a job's news come from Temporal alone")
			}
		case <-tell.C:
		}
		f.show()
		if f.held {
			tell.Reset(time.Until(f.told.Add(tellEvery)))
		}
	}
}

// listen watches for the end, and follows the worker where it is another process that says how.
func (f *feed) listen(ctx context.Context) {
	if f.watch == nil && f.looked == nil {
		if f.watch = f.s.watches.of(f.job); f.watch != nil {
			f.watch.waiting.Add(1)
		}
	}
	hub, address := f.s.opts.Live, f.job.live
	if hub == nil || address == "" || f.lost != nil || hub.Publishes(f.id) || address == f.address && time.Now().Before(f.again) {
		return
	}
	f.address, f.lost = address, make(chan error, 1)
	lost := f.lost
	f.s.background.Go(func() { lost <- hub.Follow(ctx, f.id, address) })
}

func (f *feed) unwatch() {
	if f.watch != nil {
		f.watch.waiting.Add(-1)
		f.watch = nil
	}
}

// look asks Temporal, beside what else there is to hear: it may take its time.
func (f *feed) look(read func(id, tenant string) (*job, error)) {
	if f.looked != nil {
		f.more = true
		return
	}
	seen := make(chan look, 1)
	f.looked = seen
	f.s.background.Go(func() {
		j, err := read(f.id, f.tenant)
		seen <- look{j, err}
	})
}

// saw takes what Temporal knows, and tells whether that was the last of the job. While Temporal does not answer, those
// who listen keep what they have.
func (f *feed) saw(seen look) (over bool) {
	f.looked = nil
	switch j, err := seen.job, seen.err; {
	case err != nil && asError(err).Code == CodeNotFound, err == nil && j.runID != f.runID:
		f.change(func(m *moment) { m.gone = true })
		return true
	case err == nil && j.ended():
		f.change(func(m *moment) { m.end = j })
		return true
	case err == nil:
		f.job = j
	}
	if f.more {
		f.more = false
		f.look(f.s.freshJob)
	}
	return false
}

// hear takes what the worker says, and tells whether it has let go of the prompt.
func (f *feed) hear(n live.News) (over bool) {
	if n.Update != nil {
		f.word, f.until = n.Update, time.Time{}
	}
	if n.Preview != nil {
		f.change(func(m *moment) { m.preview, m.previews = n.Preview, m.previews+1 })
	}
	if n.Over {
		f.until = time.Now().Add(lastWord)
	}
	return n.Over
}

// show tells those who listen how the job is, where that is news; not too often.
func (f *feed) show() {
	st := f.status()
	raw, err := json.Marshal(st)
	if err != nil || bytes.Equal(raw, f.shown) {
		f.held = false
		return
	}
	f.held = true
	if time.Since(f.told) >= tellEvery {
		f.held, f.shown, f.told = false, raw, time.Now()
		f.change(func(m *moment) { m.status, m.statuses = st, m.statuses+1 })
	}
}

// status makes one of what Temporal and the worker say. The worker's word is the newer one while it is there, and for a
// moment after, where Temporal knows of nothing else yet. Of two words on how far a prompt is the one that is further is
// told: one who has begun to follow a prompt does not know at once what has been done before.
func (f *feed) status() comfy.Status {
	st, word := f.job.status, f.word
	if word == nil || !f.until.IsZero() && (st.Phase != comfy.PhaseRunning || time.Now().After(f.until)) {
		return st
	}
	switch st.Phase {
	case comfy.PhaseCollecting:
		return st
	case comfy.PhaseCanceling:
	default:
		st.Phase, st.QueuePosition = comfy.PhaseQueued, word.QueuePosition
		if word.Running {
			st.Phase, st.QueuePosition = comfy.PhaseRunning, nil
		}
	}
	if word.Running && (st.Progress == nil || st.Progress.Value <= word.Progress.Value) {
		progress := word.Progress
		st.Progress = &progress
	}
	return st
}
