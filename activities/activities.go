// Package activities holds the three steps of a job that touch the world: WarmUp finds a backend that is well and can
// run the graph, Prompt carries the graph to its end there, Collect moves what it made into the store. A small job on a
// warm backend has one: Look finds what WarmUp would, within the workflow task, and Prompt stores few outputs itself. Each
// of them may be run again at any time and picks up where the last attempt stopped.
package activities

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/live"
)

// Store is what the activities need of the blob store.
type Store interface {
	PutHashed(ctx context.Context, prefix string, r io.Reader) (comfy.Blob, error)
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	Stat(ctx context.Context, key string) (comfy.Blob, error)
	Touch(ctx context.Context, key string) error
}

// Limits are the server's defaults for jobs that bring none of their own.
type Limits struct {
	Start time.Duration // from submission until the prompt runs
	Run   time.Duration // from then to its end
	Stall time.Duration // without any sign of life in between
}

// Options of the activities.
type Options struct {
	// Backends in order of preference. A worker runs prompts on these alone.
	Backends []backend.Backend
	// Elsewhere tells of pools that other workers serve; nil where there are none.
	Elsewhere func(ctx context.Context) ([]backend.Pool, error)
	// Closed tells whether a job has ended. One that was reset goes on.
	Closed func(ctx context.Context, e Execution) (bool, error)
	// ChildTenant owns the jobs that other Temporal users start. Empty: not known here.
	ChildTenant string
	// Callable tells why the receiver of a child's webhook may not be called; nil where it may.
	Callable func(address string) error
	// Owner tells whose job it is, empty for one of those; not found where there is no such job.
	Owner func(ctx context.Context, jobID string) (tenant string, found bool, err error)
	Store Store
	// Live is told of prompts as they run; nil for nobody.
	Live   *live.Hub
	Limits Limits
	// Now is this machine's clock; nil for time.Now.
	Now func() time.Time
	// Wait is how long one warm-up waits for a backend before Temporal has to ask again; 0 means 15 s.
	Wait time.Duration
	// AtOnce is how long a prompt may take to store few outputs itself before Collect has to; 0 means 250 ms.
	AtOnce time.Duration
	// PlacedFor is how long a placement counts before its prompt has started; 0 means 5 s.
	PlacedFor time.Duration
	Log       logrus.FieldLogger
}

// Activities are registered with a Temporal worker under the names in package comfy.
type Activities struct {
	o       Options
	janitor *janitor
	load    *load
	drain   *drain
	waiting atomic.Int64 // warm-ups
	ahead   sync.Once    // the clock
}

// New makes the activities. Close them when the workers have stopped.
func New(o Options) *Activities {
	if o.Wait == 0 {
		o.Wait = warmUpWait
	}
	if o.AtOnce == 0 {
		o.AtOnce = atOnceTime
	}
	if o.PlacedFor == 0 {
		o.PlacedFor = placedFor
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Activities{o: o, janitor: newJanitor(o.Closed, o.Log), load: newLoad(o.PlacedFor), drain: newDrain()}
}

// Close waits for the clean-up of jobs that have ended, as long as ctx allows.
func (a *Activities) Close(ctx context.Context) { a.janitor.close(ctx) }

// Execution is a job in Temporal: its workflow ID, and the original run, which it keeps when it is reset. A job that has
// taken the ID of a deleted one has another.
type Execution struct{ WorkflowID, OriginalRunID string }

// Job is what every activity is told about the job.
type Job struct {
	ID string `json:"id"`
	// RunID is the workflow's original run: it survives a reset, and differs when an ID is used again.
	RunID   string        `json:"run_id"`
	Request comfy.Request `json:"request"`
	// Child says that another Temporal user has started it, rather than the API: its request is not checked yet.
	Child bool `json:"child,omitempty"`
	// Avoid is the pool that lost the job's last submission: it comes last.
	Avoid string `json:"avoid,omitempty"`
}

func (j Job) execution() Execution { return Execution{WorkflowID: j.ID, OriginalRunID: j.RunID} }

// Placement is where a job runs, and under which limits.
type Placement struct {
	Pool         backend.Pool  `json:"pool"`
	StartTimeout time.Duration `json:"start_timeout"`
	RunTimeout   time.Duration `json:"run_timeout"`
	StallTimeout time.Duration `json:"stall_timeout"`
	// Child is set for a [Job.Child].
	Child *Child `json:"child,omitempty"`
}

func (a *Activities) backend(pool string) backend.Backend {
	for _, b := range a.o.Backends {
		if b.Pool().Name == pool {
			return b
		}
	}
	return nil
}
