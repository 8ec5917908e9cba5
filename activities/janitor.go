package activities

import (
	"context"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/sirupsen/logrus"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/internal/logs"
)

const (
	// janitorEvery is how often the janitor looks whether jobs have closed.
	janitorEvery = 2 * time.Second
	// releaseTimeout bounds the clean-up of one job.
	releaseTimeout = 30 * time.Second
	// releaseAgain and releaseFor are the longest pause between two attempts of it, and how long it is tried at all.
	releaseAgain, releaseFor = 10 * time.Minute, 24 * time.Hour
)

// cleanup is what one job has left on its backend.
type cleanup struct {
	workflow Execution
	backend  backend.Backend
	handle   backend.Handle
	files    []backend.File
	ended    bool // well: its outputs are to be collected
	about    logs.About
	// again are the pauses after failures, since the first one of which it goes on, and next is the end of this one; nil before.
	again       *backoff.ExponentialBackOff
	since, next time.Time
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
	away := map[string]bool{} // servers: one that is away would keep the others waiting for each of its jobs
	for _, c := range todo {
		if ctx.Err() != nil {
			return
		}
		server := c.handle.Pool + " " + c.handle.Server
		if !away[server] && !time.Now().Before(c.next) {
			away[server] = !j.clean(ctx, c)
		}
	}
}

// clean fails where the backend does not answer, and is tried again then: what was to be stopped there may cost money.
func (j *janitor) clean(ctx context.Context, c cleanup) (ok bool) {
	ctx, done := context.WithTimeout(ctx, releaseTimeout)
	defer done()
	if closed, err := j.closed(ctx, c.workflow); err != nil || !closed {
		return true
	}
	err := c.backend.Release(ctx, c.handle, c.files)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		log := logs.In(logs.With(ctx, c.about), j.log).WithError(err).WithField(logs.CallID, c.workflow.WorkflowID)
		if c.again == nil {
			log.Warn("what the job has left on the backend stays there for now")
			c.again, c.since, c.ended = backoff.NewExponentialBackOff(), time.Now(), false // it is closed: its outputs are collected
			c.again.InitialInterval, c.again.MaxInterval = janitorEvery, releaseAgain
		}
		if time.Since(c.since) < releaseFor {
			c.next = time.Now().Add(c.again.NextBackOff())
			j.todo[c.handle.PromptID] = c
			return false
		}
		log.Warn("what the job has left on the backend stays there")
	}
	delete(j.todo, c.handle.PromptID)
	return err == nil
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
