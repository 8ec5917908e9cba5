// Package worker serves comfyd's task queues: workflows, warm-up and collection on one, the prompts of each backend on
// one of their own. It also publishes what its backends have, for the API to read.
package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
	"github.com/comfyd/comfyd/internal/live"
	"github.com/comfyd/comfyd/workflows"
)

const (
	// stopTimeout is what a stopping worker grants its activities to let go of their prompts.
	stopTimeout = 5 * time.Second
	// leaveTimeout is what the store may take to hear of a stop, beside which everything else goes on.
	leaveTimeout = 2 * time.Second
	// stickyTimeout is how long a workflow task waits for the worker that has the workflow in memory before any
	// other may take it; it bounds how long a job rests after that worker's death.
	stickyTimeout = 2 * time.Second
	// heartbeatThrottle lets through one heartbeat each second, for progress that is worth reading; the SDK's default,
	// four fifths of the heartbeat timeout, would leave it seconds old. It is the time limit of a heartbeat, too: while
	// Temporal's database stalls for longer, attempts end, and go on by their handles.
	heartbeatThrottle = activities.HeartbeatEvery
	// maxSteps is how many warm-ups and collections run at once in one worker. Most of them wait.
	maxSteps = 1000
)

// Options of a worker.
type Options struct {
	Client    client.Client
	Backends  []backend.Backend // in order of preference
	Store     activities.Store
	Publisher *catalog.Publisher
	Directory *catalog.Directory
	Live      *live.Hub
	Limits    activities.Limits
	// ChildTenant owns the jobs that other Temporal users start; empty where this worker was not told.
	ChildTenant string
	// Callable tells why the receiver of a child's webhook may not be called; nil where it may.
	Callable func(address string) error
	// Converter reads the memos of jobs, as the client writes them; for what it cannot read it has an error.
	Converter converter.DataConverter
	Sweep     SweepOptions
	// Deployment turns worker versioning on. It is about the workflows alone: activities go on whatever version has begun
	// them, and a pool is a place, with one queue for its GPUs.
	Deployment Deployment
	// GoneAfter is how long nobody may serve a pool before its jobs go elsewhere. A worker that restarts is back sooner,
	// and its jobs keep their place in the queue.
	GoneAfter time.Duration
	// Drain is how long Drain may follow the prompts of a pool to their end; 0 lets go of them at once. Nil: all at once.
	Drain func(backend.Pool) time.Duration
	// Fatal is told when a worker can serve its queue no longer, such as when its namespace is gone.
	Fatal func(error)
	Log   logrus.FieldLogger
}

// Worker is a set of Temporal workers that start and stop together.
type Worker struct {
	workers    []worker.Worker
	prompts    []prompts
	activities *activities.Activities
	publisher  *catalog.Publisher
	rescuer    *rescuer
	versions   *versions // nil without a deployment
	fatal      func(error)
	schedule   func() // the sweep
}

// prompts is the part of a worker that runs those of one pool.
type prompts struct {
	pool  string
	drain time.Duration
	worker.Worker
}

// New prepares the workers; nothing is polled before Start.
func New(o Options) *Worker {
	a := activities.New(activities.Options{
		Backends: o.Backends, Store: o.Store, Live: o.Live, Limits: o.Limits, Log: o.Log,
		Elsewhere: o.Directory.Pools,
		Closed:    closed(o.Client),
		Owner:     owner(o.Client, o.Converter), ChildTenant: o.ChildTenant, Callable: o.Callable,
	})
	w := &Worker{activities: a, publisher: o.Publisher, fatal: o.Fatal}

	jobs := w.add(o.Client, comfy.TaskQueue, worker.Options{
		MaxConcurrentActivityExecutionSize: maxSteps, DeploymentOptions: o.Deployment.options(),
	})
	workflows.Register(jobs)
	register(jobs, comfy.ActivityLook, a.Look)
	register(jobs, comfy.ActivityWarmUp, a.WarmUp)
	registerNexus(jobs, o.Limits)
	registerSweep(jobs, o)
	w.schedule = func() { scheduleSweep(o.Client, o.Log) }
	for _, b := range o.Backends {
		p := b.Pool()
		run := prompts{pool: p.Name}
		if o.Drain != nil {
			run.drain = o.Drain(p)
		}
		run.Worker = w.add(o.Client, comfy.PromptTaskQueue(p.Name), worker.Options{
			MaxConcurrentActivityExecutionSize: p.Slots, DisableWorkflowWorker: true,
			MaxConcurrentActivityTaskPollers: promptPollers(p.Slots),
			WorkerStopTimeout:                run.drain + stopTimeout,
		})
		register(run, comfy.ActivityPrompt, a.Prompt)
		w.prompts = append(w.prompts, run)
		here := w.add(o.Client, comfy.CollectTaskQueue(p.Name), worker.Options{
			MaxConcurrentActivityExecutionSize: maxSteps, DisableWorkflowWorker: true,
		})
		register(here, comfy.ActivityCollect, a.Collect)
		register(here, comfy.ActivityStop, a.Stop)
	}
	w.rescuer, w.versions = newRescuer(o), newVersions(o)
	return w
}

// promptPollers is how many polls wait at the queue of a pool. Where a worker's host is cut off without a word, its polls
// stay open at Temporal, and each may swallow one attempt, which then has to time out: so few, where few slots are.
func promptPollers(slots int) int {
	return min(1+slots/8, 5)
}

func (w *Worker) add(c client.Client, queue string, o worker.Options) worker.Worker {
	o.WorkerStopTimeout = max(o.WorkerStopTimeout, stopTimeout)
	o.StickyScheduleToStartTimeout = stickyTimeout
	o.MaxHeartbeatThrottleInterval = heartbeatThrottle
	o.OnFatalError = w.fatal
	o.DisableRegistrationAliasing = true // the names are the contract's
	n := worker.New(c, queue, o)
	w.workers = append(w.workers, n)
	return n
}

func register(w worker.Worker, name string, f any) {
	w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
}

// Start begins to poll. On an error nothing is left running.
func (w *Worker) Start() error {
	w.publisher.Start()
	for i, n := range w.workers {
		if err := n.Start(); err != nil {
			for _, started := range w.workers[:i] {
				started.Stop()
			}
			w.publisher.Stop()
			ctx, done := context.WithCancel(context.Background())
			done()
			w.activities.Close(ctx)
			return fmt.Errorf("starting the workers: %w", err)
		}
	}
	w.rescuer.start()
	w.versions.start()
	w.schedule()
	return nil
}
