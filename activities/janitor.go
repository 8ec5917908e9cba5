package activities

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/internal/logs"
)

const (
	// janitorEvery is how often the janitor looks whether jobs have closed.
	janitorEvery = 2 * time.Second
	// releaseTimeout bounds the clean-up of one job.
	releaseTimeout = 30 * time.Second
)

// cleanup is what one job has left on its backend.
type cleanup struct {
	workflow Execution
	backend  backend.Backend
	handle   backend.Handle
	files    []backend.File
	ended    bool // well: its outputs are to be collected
	about    logs.About
}

// janitor removes a job's files from its backend once the job is closed: not sooner, because an attempt whose result
// never reached Temporal is made again and needs them; and not as a step of the job, because nobody should wait for it.
// What a killed worker leaves behind stays.
type janitor struct {
	closed func(context.Context, Execution) (bool, error)
	log    logrus.FieldLogger
	cancel context.CancelFunc
	stop   func()

	mu   sync.Mutex
	todo map[string]cleanup // by prompt ID
}

func newJanitor(closed func(context.Context, Execution) (bool, error), log logrus.FieldLogger) *janitor {
	ctx, cancel := context.WithCancel(context.Background())
	j := &janitor{closed: closed, log: log, cancel: cancel, todo: map[string]cleanup{}}
	j.stop = each(janitorEvery, func(time.Time) { j.sweep(ctx) })
	return j
}

// later queues a clean-up; a newer one for the same prompt takes the older one's place.
func (j *janitor) later(c cleanup) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.todo[c.handle.PromptID] = c
}

// sweep cleans up after every job that has closed.
func (j *janitor) sweep(ctx context.Context) {
	j.mu.Lock()
	todo := make([]cleanup, 0, len(j.todo))
	for _, c := range j.todo {
		todo = append(todo, c)
	}
	j.mu.Unlock()
	for _, c := range todo {
		if ctx.Err() != nil {
			return
		}
		j.clean(ctx, c)
	}
}

func (j *janitor) clean(ctx context.Context, c cleanup) {
	ctx, done := context.WithTimeout(ctx, releaseTimeout)
	defer done()
	if closed, err := j.closed(ctx, c.workflow); err != nil || !closed {
		return
	}
	if err := c.backend.Release(ctx, c.handle, c.files); err != nil {
		logs.In(logs.With(ctx, c.about), j.log).WithError(err).WithField(logs.CallID, c.workflow.WorkflowID).Warn("the job's files stay on the backend")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.todo, c.handle.PromptID)
}

// uncollected tells whether the files of a prompt that has ended well wait for their job's end.
func (j *janitor) uncollected() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.todo {
		if c.ended {
			return true
		}
	}
	return false
}

// close looks once more and stops.
func (j *janitor) close(ctx context.Context) {
	j.cancel()
	j.stop()
	j.sweep(ctx)
}
