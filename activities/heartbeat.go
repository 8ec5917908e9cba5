package activities

import (
	"context"
	"io"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/live"
)

const (
	// HeartbeatEvery keeps a prompt's progress fresh for readers; the workflow's heartbeat timeout is a few times longer. It
	// has to be the SDK's MaxHeartbeatThrottleInterval, too.
	HeartbeatEvery = time.Second
	// silence is the first of them that is sent without a handle: the SDK sends the very first one at once, which makes the
	// handle durable, and holds the next ones back. An attempt that takes longer has to say that it lives all the same.
	silence = 3
	// secondLook is what an attempt that goes on with a prompt has to see whether that runs by now, before its time to start is over:
	// it may have begun while nobody followed it.
	secondLook = 30 * time.Second
)

// Heartbeat is what the Prompt activity says while it runs. The next attempt finds the prompt by it, and
// GET /status reads the progress from it without asking any worker.
type Heartbeat struct {
	Handle *backend.Handle `json:"handle,omitempty"`
	Update *backend.Update `json:"update,omitempty"`
	// Live is where the API may follow the prompt closer than by these heartbeats; empty where it cannot.
	Live string `json:"live,omitempty"`
	// RunningSince is when the prompt was first seen to run; its time limit counts from here, across attempts.
	RunningSince time.Time `json:"running_since,omitzero"`
}

// recorder is the activity's side of backend.Recorder.
type recorder struct {
	ctx    context.Context
	store  Store
	prefix string
	live   *live.Source

	// now is Temporal's clock: the worker's own may be off by any amount.
	now func() time.Time

	mu    sync.Mutex
	state Heartbeat
	early bool // there was a heartbeat before the handle

	inherited bool // an earlier attempt has handed the prompt over, or may have
}

// newRecorder goes on where the last attempt's heartbeats stopped, or those of an earlier activity. It publishes to l.
func newRecorder(ctx context.Context, s Store, l *live.Source, prefix string, earlier *Heartbeat) *recorder {
	began, start := time.Now(), activity.GetInfo(ctx).StartedTime
	r := &recorder{ctx: ctx, store: s, live: l, prefix: prefix, now: func() time.Time { return start.Add(time.Since(began)) }}
	if earlier != nil {
		r.state = *earlier
	}
	if activity.HasHeartbeatDetails(ctx) {
		// Details that cannot be read are those of another version: the prompt's ID finds it all the same.
		_ = activity.GetHeartbeatDetails(ctx, &r.state)
	}
	r.state.Live = l.URL()
	r.inherited = r.state.Handle != nil || activity.GetInfo(ctx).Attempt > 1
	return r
}

// startBy is when the time to start is over for this attempt.
func (r *recorder) startBy(limit time.Time) time.Time {
	if look := r.now().Add(secondLook); r.inherited && look.After(limit) {
		return look
	}
	return limit
}

// Handle makes the handle durable. It is the activity's first heartbeat, which the SDK sends at once and waits for;
// where it fails, the SDK ends the context, and so does this. After an early one it is held back, and this waits until it
// has gone out, or has failed as the first one does. The SDK sends all later ones with the context of this one, also
// those of a prompt that is being stopped, whose own context has ended.
func (r *recorder) Handle(ctx context.Context, h backend.Handle) error {
	r.mu.Lock()
	r.state.Handle = &h
	s, early := r.state, r.early
	r.early = false
	r.mu.Unlock()
	activity.RecordHeartbeat(context.WithoutCancel(r.ctx), s)
	if early {
		select {
		case <-time.After(2*HeartbeatEvery + HeartbeatEvery/4):
		case <-r.ctx.Done():
		}
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return ctx.Err()
}

// Progress keeps the newest word for the next heartbeat, and tells those who listen right now. One who follows a prompt
// that ran before does not hear what was done then: that stays done.
func (r *recorder) Progress(u backend.Update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before := r.state.Update; before != nil {
		u.Progress.Value = max(u.Progress.Value, before.Progress.Value)
		u.Progress.NodesDone = max(u.Progress.NodesDone, before.Progress.NodesDone)
	}
	r.live.Publish(live.News{Update: &u})
	r.state.Update = &u
	if u.Running && r.state.RunningSince.IsZero() {
		r.state.RunningSince = r.now()
	}
}

// Preview is for those alone who listen right now.
func (r *recorder) Preview(p backend.Preview) { r.live.Publish(live.News{Preview: &p}) }

// Store keeps bytes that the backend hands out only once.
func (r *recorder) Store(ctx context.Context, body io.Reader) (comfy.Blob, error) {
	return r.store.PutHashed(ctx, r.prefix, body)
}

func (r *recorder) handle() *backend.Handle {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Handle
}

// forget takes the handle back, in the last word to the next attempt, too.
func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Handle = nil
	activity.RecordHeartbeat(context.WithoutCancel(r.ctx), r.state)
}

// ran is for how long the prompt has been seen to run.
func (r *recorder) ran() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.RunningSince.IsZero() {
		return 0
	}
	return r.now().Sub(r.state.RunningSince)
}

func (r *recorder) running() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.state.RunningSince.IsZero()
}

// limits of a prompt; stop ends its context with the reason.
type limits struct {
	startBy  time.Time
	deadline time.Time
	run      time.Duration
	stop     context.CancelCauseFunc
}

func (l limits) check(now, since time.Time) {
	switch {
	case since.IsZero() && now.After(l.startBy):
		l.stop(errStartLimit)
	case !since.IsZero() && (now.Sub(since) > l.run || now.After(l.deadline)):
		l.stop(errRunLimit)
	}
}

// beat sends a heartbeat each second, from the first handle on or after a time without one, and watches the limits, until
// stop is called.
func (r *recorder) beat(l limits) (stop func()) {
	alive := context.WithoutCancel(r.ctx) // also while a prompt is being stopped
	ticks := 0
	return each(HeartbeatEvery, func(time.Time) {
		ticks++
		r.mu.Lock()
		s := r.state
		if s.Handle == nil && ticks >= silence {
			r.early = true
			activity.RecordHeartbeat(alive, s) // before anybody has a handle: it must not take that one's place
		}
		r.mu.Unlock()
		if s.Handle != nil {
			activity.RecordHeartbeat(alive, s)
		}
		if r.ctx.Err() == nil {
			l.check(r.now(), s.RunningSince)
		}
	})
}

// last hands the newest word to the next attempt. The SDK sends it with the end of this one.
func (r *recorder) last() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Handle != nil {
		activity.RecordHeartbeat(context.WithoutCancel(r.ctx), r.state)
	}
}

// each calls f at every tick until stop is called, which waits for a call under way.
func each(d time.Duration, f func(now time.Time)) (stop func()) {
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case now := <-tick.C:
				f(now)
			}
		}
	}()
	return func() {
		close(quit)
		<-gone
	}
}
