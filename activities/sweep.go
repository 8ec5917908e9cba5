package activities

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/removal"
)

// SweepName is the activity that removes from the store what Temporal has forgotten.
const SweepName = "Sweep"

const (
	// longestRun is how long a job may be open beside its wait for a GPU: the longest run that the API allows, and the
	// hour that it grants for the rest.
	longestRun = 25 * time.Hour
	// catalogAge is how old a catalogue must be that no worker names. Workers renew those that they use each hour.
	catalogAge = 24 * time.Hour
)

// SweepOptions are what a [Sweeper] works with.
type SweepOptions struct {
	Temporal  removal.Temporal
	Namespace string
	Store     removal.Store
	// Start is how long a job may wait for a GPU.
	Start time.Duration
	// Catalogs are the keys of the catalogues that workers name at present.
	Catalogs func(ctx context.Context) (map[string]bool, error)
	// Tell starts the webhook of a run of a job, where it has one that was not started yet.
	Tell func(ctx context.Context, jobID, runID string) error
	Log  logrus.FieldLogger
}

// Sweeper removes from the store what belongs to no job any more. Any number may work at once.
type Sweeper struct{ o SweepOptions }

// NewSweeper makes a sweeper.
func NewSweeper(o SweepOptions) *Sweeper { return &Sweeper{o: o} }

// Swept is what a sweep has removed.
type Swept struct {
	Removals int   `json:"removals"` // of deleted jobs, that are complete now
	Outputs  int   `json:"outputs"`
	Inputs   int   `json:"inputs"`
	Graphs   int   `json:"graphs"`
	Catalogs int   `json:"catalogs"`
	Bytes    int64 `json:"bytes"`
	Skipped  bool  `json:"skipped,omitempty"` // the store belongs to another namespace
	// Told is until when the receivers were told of jobs that Temporal itself has ended; the next sweep goes on from there.
	Told time.Time `json:"told,omitzero"`
}

// place is where a sweep is: all keys up to After are done. The walk goes by prefix in the order of their names, so that
// one key tells it.
type place struct {
	After string `json:"after"`
	Swept Swept  `json:"swept"`
}

// sweep is one run of the activity.
type sweep struct {
	*Sweeper
	ctx     context.Context
	remover *removal.Remover
	// now is Temporal's time at the start, because a worker's clock may be days off. It is compared with that of the store,
	// and a difference of minutes does no harm: by age alone nothing goes but what is a day above any use.
	now       time.Time
	retention time.Duration
	job       string // whose outputs are being looked at
	forgotten bool   // by Temporal

	mu    sync.Mutex // the heartbeat reads it, too
	place place
}

// Sweep starts webhooks that Temporal's end of a job has prevented. It removes outputs whose jobs Temporal has forgotten,
// inputs, graphs and catalogues that nobody uses, and finishes deletions that were interrupted. It looks closely only at what
// is older than the namespace's retention, asks about each job once, and goes on where an attempt before it stopped. What
// Temporal or the store does not say for certain ends it: nothing is removed in doubt.
// told is the [Swept.Told] of the sweep before, zero where there was none.
func (s *Sweeper) Sweep(ctx context.Context, told time.Time) (*Swept, error) {
	w := &sweep{Sweeper: s, ctx: ctx, now: activity.GetInfo(ctx).StartedTime}
	if activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &w.place) // of another version: from the beginning, then
	}
	asking, done := context.WithTimeout(ctx, removal.CallTimeout)
	namespace, err := s.o.Temporal.WorkflowService().DescribeNamespace(asking, &workflowservice.DescribeNamespaceRequest{Namespace: s.o.Namespace})
	done()
	if err != nil {
		return nil, fmt.Errorf("reading the retention of namespace %s: %w", s.o.Namespace, err)
	}
	defer each(HeartbeatEvery, func(time.Time) {
		w.mu.Lock()
		at := w.place
		w.mu.Unlock()
		activity.RecordHeartbeat(ctx, at)
	})()
	w.retention = namespace.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
	if w.retention <= 0 {
		return nil, fmt.Errorf("namespace %s has no retention", s.o.Namespace)
	}
	id := namespace.GetNamespaceInfo().GetId()
	w.remover = &removal.Remover{Temporal: s.o.Temporal, Namespace: s.o.Namespace, NamespaceID: id, Store: s.o.Store}
	if ours, err := w.owned(id); err != nil || !ours {
		return &Swept{Skipped: err == nil, Told: told}, err
	}
	finished, err := w.remover.Finish(ctx, w.now)
	w.count(func(n *Swept) { n.Removals += finished })
	if err != nil { // the next sweep comes within the hour; a note that cannot be read would fail each attempt
		s.o.Log.WithError(err).Warn("some deletions of jobs are not finished; the next sweep tries again")
	}
	if err := w.unsent(told); err != nil {
		s.o.Log.WithError(err).Warn("some receivers of webhooks were not told of jobs that Temporal has ended; the next sweep tries again")
	} else {
		told = w.now
	}
	for _, part := range []struct {
		prefix string
		look   func(comfy.Blob) error
	}{
		// In the order of their names, by which a later attempt finds its place.
		{"catalogs/", w.catalogs()},
		{"graphs/", w.input(func(n *Swept) { n.Graphs++ })},
		{"inputs/", w.input(func(n *Swept) { n.Inputs++ })},
		{comfy.OutputRoot, w.output},
		{comfy.WebhookNotes, w.note},
	} {
		if err := w.walk(part.prefix, part.look); err != nil {
			return nil, err
		}
	}
	swept := w.place.Swept
	if swept != (Swept{}) {
		s.o.Log.WithField("swept", swept).Info("the store was swept")
	}
	swept.Told = told
	return &swept, nil
}

func (w *sweep) count(f func(*Swept)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.place.Swept)
}

// owned tells whether the store is this namespace's. Where it is nobody's, this one takes it and sweeps the next time:
// another may be taking it at this moment, and then it is told who has it.
func (w *sweep) owned(id string) (bool, error) {
	owner, err := removal.Owner(w.ctx, w.o.Store)
	if err != nil {
		return false, err
	}
	if owner == "" {
		return false, removal.Claim(w.ctx, w.o.Store, id)
	}
	if id != "" && owner == id {
		return true, nil
	}
	w.o.Log.Warnf("the store belongs to the Temporal namespace with the ID %s, and this one is %s: nothing is swept, because the jobs of the other one cannot be known here. Give each namespace a store of its own; should the other one be gone for good, remove %s from the store", owner, id, removal.OwnerKey)
	return false, nil
}

// walk looks at every object below a prefix that was not looked at before.
func (w *sweep) walk(prefix string, look func(comfy.Blob) error) error {
	for b, err := range w.o.Store.List(w.ctx, prefix) {
		if err != nil {
			return fmt.Errorf("listing %s: %w", prefix, err)
		}
		if b.Key <= w.place.After {
			continue
		}
		select {
		case <-activity.GetWorkerStopChannel(w.ctx):
			return errStopping
		default:
		}
		if err := look(b); err != nil {
			return err
		}
		w.mu.Lock()
		w.place.After = b.Key
		w.mu.Unlock()
	}
	return w.ctx.Err()
}

// remove takes an object away unless it has been stored anew.
func (w *sweep) remove(b comfy.Blob, count func(*Swept)) error {
	gone, err := removal.RemoveUnchanged(w.ctx, w.o.Store, b)
	if gone && err == nil {
		w.count(func(n *Swept) { n.Bytes += b.Size; count(n) })
	}
	return err
}

// output looks at one output. A job's lie side by side, so Temporal is asked once about each.
func (w *sweep) output(b comfy.Blob) error {
	age := w.now.Sub(b.Modified)
	if age <= w.retention {
		return nil
	}
	id := path.Base(path.Dir(b.Key))
	if strings.HasPrefix(id, "~") {
		// A child whose ID only its hash tells: it cannot be asked about, and so it is given all the time that a job has.
		if age <= w.retention+w.longestLife() {
			return nil
		}
		return w.remove(b, func(n *Swept) { n.Outputs++ })
	}
	if id != w.job {
		_, err := w.o.Temporal.DescribeWorkflowExecution(w.ctx, id, "")
		var missing *serviceerror.NotFound // and not NamespaceNotFound, nor any other doubt
		if w.job, w.forgotten = id, errors.As(err, &missing); err != nil && !w.forgotten {
			w.job = ""
			return fmt.Errorf("asking Temporal about job %s: %w", id, err)
		}
	}
	if !w.forgotten {
		return nil
	}
	return w.remove(b, func(n *Swept) { n.Outputs++ })
}

// longestLife is how long a job may be open.
func (w *sweep) longestLife() time.Duration { return w.o.Start + longestRun }

// input looks at one input file or graph. Each use renews it, so an old one has no job that is known; Temporal is asked
// all the same, for jobs that were started with longer limits.
func (w *sweep) input(count func(*Swept)) func(comfy.Blob) error {
	return func(b comfy.Blob) error {
		if w.now.Sub(b.Modified) <= w.retention+w.longestLife() {
			return nil
		}
		used, err := w.remover.Used(w.ctx, b.Key, path.Base(path.Dir(b.Key)))
		if err != nil || used {
			return err
		}
		return w.remove(b, count)
	}
}

// note looks at the note of a receiver that wants no more webhooks. They are small, and told by nobody.
func (w *sweep) note(b comfy.Blob) error {
	if w.now.Sub(b.Modified) <= comfy.WebhookNotesLast {
		return nil
	}
	_, err := removal.RemoveUnchanged(w.ctx, w.o.Store, b)
	return err
}

// catalogs looks at one catalogue.
func (w *sweep) catalogs() func(comfy.Blob) error {
	var named map[string]bool
	return func(b comfy.Blob) (err error) {
		if w.now.Sub(b.Modified) <= catalogAge {
			return nil
		}
		if named == nil {
			if named, err = w.o.Catalogs(w.ctx); err != nil {
				return fmt.Errorf("reading which catalogues are in use: %w", err)
			}
		}
		if named[b.Key] {
			return nil
		}
		return w.remove(b, func(n *Swept) { n.Catalogs++ })
	}
}
