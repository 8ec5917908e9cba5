package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/sirupsen/logrus"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
	"github.com/comfyd/comfyd/internal/visibility"
)

const (
	// rescueTimeout bounds one look, with the signals of all jobs that it finds.
	rescueTimeout = 5 * time.Minute
	// pollAge is how old the last poll of a live worker may be: Temporal notes a poll when it begins and when it ends,
	// which is up to a minute later.
	pollAge = 65 * time.Second
	// firstPause and lastPause are those between the signals to one job.
	firstPause = 5 * time.Second
	lastPause  = 30 * time.Minute
)

// rescuer tells jobs that wait at a pool whose last worker is gone, so that they go elsewhere. Every worker has one; they
// do the same, and a job that is told twice passes the second word over.
type rescuer struct {
	client    client.Client
	directory *catalog.Directory
	own       map[string]bool // the pools that this worker serves itself: they are not gone
	goneAfter time.Duration
	log       logrus.FieldLogger
	cancel    context.CancelFunc
	gone      chan struct{}

	since map[string]time.Time            // when a pool was first seen without a worker, look after look
	told  map[string]map[string]signalled // of each such pool, by run
}

// signalled is when a run is signalled again that is still at a pool which is gone. Most such jobs want no other pool, and each
// signal is events in their histories: so ever later, and not never, for one that was on its way there when it was told.
type signalled struct {
	again time.Time
	pause time.Duration
}

func (s signalled) next() signalled {
	pause := min(max(2*s.pause, firstPause), lastPause)
	return signalled{time.Now().Add(pause), pause}
}

func newRescuer(o Options) *rescuer {
	r := &rescuer{client: o.Client, directory: o.Directory, own: map[string]bool{}, goneAfter: o.GoneAfter, log: o.Log, since: map[string]time.Time{},
		told: map[string]map[string]signalled{}}
	for _, b := range o.Backends {
		r.own[b.Pool().Name] = true
	}
	return r
}

func (r *rescuer) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.gone = cancel, make(chan struct{})
	go func() {
		defer close(r.gone)
		tick := time.NewTicker(max(time.Second, min(r.goneAfter/3, 10*time.Second)))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := r.look(ctx); err != nil && ctx.Err() == nil {
				clear(r.since) // nothing is known for sure
				r.log.WithError(err).Debug("cannot look for jobs at pools without a worker")
			}
		}
	}()
}

func (r *rescuer) stop() {
	if r.cancel != nil {
		r.cancel()
		<-r.gone
	}
}

// look tells the jobs of every pool that has been gone long enough.
func (r *rescuer) look(ctx context.Context) error {
	ctx, done := context.WithTimeout(ctx, rescueTimeout)
	defer done()
	pools, err := r.directory.Gone(ctx)
	if err != nil {
		return err
	}
	missing := map[string]time.Time{}
	for _, g := range pools {
		if r.own[g.Pool] {
			continue
		}
		missing[g.Pool] = time.Now()
		if at, ok := r.since[g.Pool]; ok {
			missing[g.Pool] = at
		}
	}
	r.since = missing
	maps.DeleteFunc(r.told, func(pool string, _ map[string]signalled) bool { _, still := missing[pool]; return !still })
	for _, g := range pools {
		at, ok := missing[g.Pool]
		if !ok || time.Since(at) < r.goneAfter {
			continue
		}
		if !g.Stopped { // silent in the store: what does Temporal know?
			polled, err := r.polled(ctx, g.Pool)
			if err != nil {
				return err
			}
			if polled {
				continue
			}
		}
		if err := r.tell(ctx, g.Pool); err != nil {
			return err
		}
	}
	return nil
}

// polled tells whether a worker of the pool has asked Temporal for work of late: one that cannot reach the store, where
// the records lie, is at work all the same. It asks about collection, for which a worker polls even while all of its
// prompts' slots are taken. What is late is told by Temporal's clock: our own polls are now, or a minute ago.
func (r *rescuer) polled(ctx context.Context, pool string) (bool, error) {
	ours, err := r.lastPoll(ctx, comfy.TaskQueue)
	if err != nil {
		return false, err
	}
	theirs, err := r.lastPoll(ctx, comfy.CollectTaskQueue(pool))
	if err != nil {
		return false, err
	}
	return !theirs.IsZero() && ours.Sub(theirs) < max(r.goneAfter, pollAge), nil
}

// lastPoll is when somebody last asked for activities of a queue; zero where Temporal remembers nobody, which is so five
// minutes after the last poll.
func (r *rescuer) lastPoll(ctx context.Context, queue string) (last time.Time, err error) {
	q, err := r.client.DescribeTaskQueue(ctx, queue, enums.TASK_QUEUE_TYPE_ACTIVITY)
	if err != nil {
		return last, fmt.Errorf("asking Temporal who serves the task queue %s: %w", queue, err)
	}
	for _, p := range q.GetPollers() {
		if at := p.GetLastAccessTime().AsTime(); at.After(last) {
			last = at
		}
	}
	return last, nil
}

// tell signals the open jobs of a pool, those that it has signalled before ever less often.
func (r *rescuer) tell(ctx context.Context, pool string) error {
	query := visibility.Jobs() + " AND " + visibility.Open() + " AND " + comfy.AttrBackend + " = " + visibility.Quote(pool)
	if r.told[pool] == nil {
		r.told[pool] = map[string]signalled{}
	}
	told, there := r.told[pool], map[string]bool{}
	jobs := 0
	for id, err := range visibility.Executions(ctx, r.client, query) {
		if err != nil {
			return fmt.Errorf("listing the jobs of the pool %s: %w", pool, err)
		}
		run := id.GetRunId()
		there[run] = true
		if time.Now().Before(told[run].again) {
			continue
		}
		err = r.client.SignalWorkflow(ctx, id.GetWorkflowId(), run, comfy.SignalPoolGone, pool)
		var ended *serviceerror.NotFound
		switch {
		case errors.As(err, &ended):
		case ctx.Err() != nil:
			return fmt.Errorf("telling job %s that its pool is gone: %w", id.GetWorkflowId(), err)
		case err != nil: // one job's matter: the others are told all the same, and this one in the next look
			r.log.WithError(err).WithField("call_id", id.GetWorkflowId()).Warn("a job cannot be told that its pool is gone")
		default:
			told[run] = told[run].next()
			jobs++
		}
	}
	maps.DeleteFunc(told, func(run string, _ signalled) bool { return !there[run] })
	if jobs > 0 {
		r.log.WithFields(logrus.Fields{"pool": pool, "jobs": jobs}).Warn("no worker serves this pool any more; its jobs go elsewhere")
	}
	return nil
}
