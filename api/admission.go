package api

import (
	"context"
	"sync"
	"time"

	"go.temporal.io/api/workflowservice/v1"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

const (
	// countFresh is how old a count of open jobs may be near a bound, and from what age on it is renewed elsewhere.
	countFresh = time.Second
	// countStale is the age at which a count says nothing any more: the other replicas may have filled the room since.
	countStale = 20 * time.Second
	// countTimeout bounds one count, and countPatience what a submission waits for it: a Temporal that counts slowly still
	// has its bounds kept, by the count before.
	countTimeout  = 10 * time.Second
	countPatience = time.Second
	// countWarnEvery is how often at most it is said that nobody can count.
	countWarnEvery = time.Minute
	// nearBound is the part of a bound, in tenths, from which on a submission waits for a fresh count.
	nearBound = 9

	spaceFresh, spaceStale, spaceTimeout = time.Second, 5 * time.Second, 2 * time.Second
	storeFresh, storeStale               = 5 * time.Second, 30 * time.Second
)

// admission says whether one more job may be accepted. It counts the jobs that are open, waiting and running, in all and
// of each tenant, by Temporal's visibility; what this replica has started since a count is added to it. So the bounds are
// soft by what other replicas accept within the second that a count lasts, and by how far Temporal's visibility is behind.
type admission struct {
	s *Server

	mu      sync.Mutex // guards the gauges' numbers, too: a place is found and taken in one step
	all     *gauge
	tenants map[string]*gauge
	warned  time.Time // when it was last said that nobody can count

	space, store *probe
}

func newAdmission(s *Server) *admission {
	a := &admission{s: s, tenants: map[string]*gauge{}}
	a.all = a.gauge(s.opts.MaxOpenJobs, "The server has %d open jobs and takes %d at most (COMFYD_MAX_OPEN_JOBS).", "")
	a.space = &probe{limit: spaceTimeout, fresh: spaceFresh, stale: spaceStale, ask: func(ctx context.Context) error {
		if s.opts.Space == nil {
			return nil
		}
		return s.opts.Space(ctx)
	}}
	a.store = &probe{limit: readyTimeout, fresh: storeFresh, stale: storeStale, ask: s.store.Ping}
	return a
}

// gauge is the number of open jobs that one bound is about.
type gauge struct {
	limit int64
	text  string // of the refusal, with the number and the bound
	probe *probe

	counted  int64 // by visibility, when it was last asked
	earlier  int64 // started by this replica before the question under way
	since    int64 // and since then
	inFlight int64 // on their way to Temporal
	doubt    int64 // may be in counted and in since: they were started while the last question was under way
}

func (g *gauge) open() int64 { return g.counted + g.earlier + g.since + g.inFlight }

// gauge makes one over the open jobs for which the condition holds.
func (a *admission) gauge(limit int, text, condition string) *gauge {
	g := &gauge{limit: int64(limit), text: text}
	request := &workflowservice.CountWorkflowExecutionsRequest{
		Namespace: a.s.opts.Namespace,
		Query:     visibility.Jobs() + " AND ExecutionStatus = 'Running'" + condition,
	}
	g.probe = &probe{limit: countTimeout, patience: countPatience, fresh: countFresh, stale: countStale, ask: func(ctx context.Context) error {
		a.mu.Lock()
		g.earlier, g.since = g.earlier+g.since, 0
		a.mu.Unlock()
		answer, err := a.s.temporal.CountWorkflow(ctx, request)
		if err != nil {
			a.warn(err)
			return err
		}
		a.mu.Lock()
		g.counted, g.earlier, g.doubt = answer.GetCount(), 0, g.since+g.inFlight
		a.mu.Unlock()
		return nil
	}}
	return g
}

// warn says that the bounds on open jobs are not kept.
func (a *admission) warn(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.s.life.Err() != nil || !a.warned.IsZero() && time.Since(a.warned) < countWarnEvery {
		return
	}
	a.warned = time.Now()
	a.s.log.WithError(err).Warn("Temporal could not count the open jobs: COMFYD_MAX_OPEN_JOBS and COMFYD_MAX_OPEN_JOBS_PER_TENANT bound nothing until it can")
}

func (a *admission) of(tenant string) []*gauge {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.tenants[tenant]
	if g == nil {
		g = a.gauge(a.s.opts.MaxOpenJobsPerTenant, "You have %d open jobs; a tenant may have %d at most (COMFYD_MAX_OPEN_JOBS_PER_TENANT).",
			" AND "+comfy.AttrTenant+" = "+visibility.Quote(tenant))
		a.tenants[tenant] = g
	}
	return []*gauge{a.all, g}
}

// enter takes places for so many jobs, which leave gives back; started is how many of them may be there now.
func (a *admission) enter(tenant string, jobs int) (leave func(started int), err error) {
	gauges := a.of(tenant)
	known := make([]bool, len(gauges))
	for i, g := range gauges {
		known[i] = a.known(g, jobs)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range gauges {
		if int64(jobs) > g.limit { // that others end would never help
			return nil, failf(CodeLimitExceeded, "The %d jobs of this batch are more than may be open at all, %d (COMFYD_MAX_OPEN_JOBS, COMFYD_MAX_OPEN_JOBS_PER_TENANT); send fewer at a time.", jobs, g.limit)
		}
	}
	for i, g := range gauges {
		if n := g.open(); known[i] && n+int64(jobs) > g.limit {
			return nil, failf(CodeRateLimited, g.text+" Nothing was accepted; try again when some have ended.", n, g.limit)
		}
	}
	for _, g := range gauges {
		g.inFlight += int64(jobs)
	}
	return func(started int) {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, g := range gauges {
			g.inFlight -= int64(jobs)
			g.since += int64(started)
		}
	}, nil
}

// known tells whether the gauge's number can be believed. Far from the bound an older count will do, and a submission
// waits for none; nobody is refused for a job that may have been counted twice. Where visibility does not answer, nobody
// knows, and the job is accepted: a Temporal that cannot take it refuses the start itself.
func (a *admission) known(g *gauge, jobs int) bool {
	with := func() (open int64, doubtful bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		open = g.open() + int64(jobs)
		return open, open > g.limit && g.doubt > 0
	}
	err := g.probe.last(a.s)
	if open, _ := with(); open*10 >= g.limit*nearBound {
		err = g.probe.now(a.s)
	}
	if _, doubtful := with(); doubtful && err == nil {
		err = g.probe.again(a.s)
	}
	return err == nil
}

// room fails where a disk is nearly full.
func (a *admission) room() error {
	if err := a.space.now(a.s); err != nil {
		return failf(CodeStorage, "The server is short of disk space: %s. Nothing was accepted; try again when there is room.", err)
	}
	return nil
}

// healthy fails where what a job needs is known to be away: room on the disks, and the store, also for a job that brings
// nothing to it, because its outputs could not be kept.
func (a *admission) healthy() error {
	if err := a.room(); err != nil {
		return err
	}
	if a.store.last(a.s) == nil {
		return nil
	}
	if err := a.store.now(a.s); err != nil {
		return storeError(err)
	}
	return nil
}

// admit refuses a submission of so many jobs before anything of it is kept. Its first use is before the body is read, its
// second before the files are stored. A job that is there already, under its Idempotency-Key, needs no place; id is the
// first one's.
func (s *Server) admit(tenant, key, id string, jobs int) (leave func(started int), err error) {
	if err = s.admission.healthy(); err == nil {
		leave, err = s.admission.enter(tenant, jobs)
	}
	if err == nil || key == "" {
		return leave, err
	}
	ctx, cancel := context.WithTimeout(s.life, startTimeout)
	defer cancel()
	there, lookErr := s.exists(ctx, id)
	if lookErr != nil {
		return nil, lookErr
	}
	if !there {
		return nil, err
	}
	return func(int) {}, nil
}
