package api

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// openFor is how old the status of an open job may be.
	openFor = 250 * time.Millisecond
	// waitsFor is the same for a job that nobody has taken up yet, where this process hears of that at once.
	waitsFor    = 2 * time.Second
	maxOpenJobs = 4096
	// maxClosedBytes bounds the memory for jobs that have ended; maxBody is the largest answer kept ready there.
	maxClosedBytes = 32 << 20
	maxBody        = 256 << 10
	maxClosedJobs  = 1 << 16
	// recheckAfter is how long an ended job is told from memory before Temporal is asked whether it is known still:
	// another replica may have deleted it, or its retention may be over.
	recheckAfter = 5 * time.Second
	// maxDeleted is how many deleted jobs are remembered, so that a read which began before brings none of them back.
	maxDeleted = 4096
)

// openJobs remembers for a moment what was read of open jobs, so that many pollers cost one read.
type openJobs struct {
	mu   sync.Mutex
	jobs *simplelru.LRU[string, openJob]
}

type openJob struct {
	job    *job      // nil where nothing was read yet
	at     time.Time // when it was read; zero where it is not to be told any more
	turned time.Time // when a worker has last taken it up or let it go
	voided time.Time // when all that was known of it became void
}

func newOpenJobs() *openJobs {
	jobs, err := simplelru.NewLRU[string, openJob](maxOpenJobs, nil)
	if err != nil {
		panic(err) // the size is a constant above zero
	}
	return &openJobs{jobs: jobs}
}

// get returns nil where there is nothing that may still be told; often says that it is asked for more often than it is read.
func (o *openJobs) get(id string, now time.Time) (j *job, often bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	hit, _ := o.jobs.Get(id)
	if hit.job == nil || hit.at.IsZero() {
		return nil, false
	}
	age := now.Sub(hit.at)
	if age >= openFor && (age >= waitsFor || !hit.job.waits) {
		return nil, false
	}
	return hit.job, age < openFor
}

// last returns what was read of a job last, however long ago; nil where nothing is remembered.
func (o *openJobs) last(id string) *job {
	o.mu.Lock()
	defer o.mu.Unlock()
	hit, _ := o.jobs.Peek(id)
	return hit.job
}

// add takes what a read that began then has brought. A job that a worker has taken up since does not wait any more.
func (o *openJobs) add(j *job, began, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	hit, _ := o.jobs.Peek(j.id)
	hit.job, hit.at = j, now
	if began.Before(hit.voided) || j.waits && began.Before(hit.turned) {
		hit.at = time.Time{}
	}
	o.jobs.Add(j.id, hit)
}

// turn says that a worker has taken a job up or let it go: one that was told to wait is read anew.
func (o *openJobs) turn(id string, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	hit, _ := o.jobs.Peek(id)
	hit.turned = now
	if hit.job != nil && hit.job.waits {
		hit.at = time.Time{}
	}
	o.jobs.Add(id, hit)
}

// void makes the next read ask Temporal; one that is on its way does not count.
func (o *openJobs) void(id string, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	hit, _ := o.jobs.Peek(id)
	hit.at, hit.voided = time.Time{}, now
	o.jobs.Add(id, hit)
}

// closedJobs remembers jobs that have ended, which never change but for being forgotten, up to a number of bytes.
type closedJobs struct {
	mu   sync.Mutex
	jobs *simplelru.LRU[string, closedJob]
	size int
}

type closedJob struct {
	*job
	checked time.Time // when Temporal last knew it
}

func newClosedJobs() *closedJobs {
	c := &closedJobs{}
	jobs, err := simplelru.NewLRU(maxClosedJobs, func(_ string, j closedJob) { c.size -= sizeOf(j.job) })
	if err != nil {
		panic(err) // the size is a constant above zero
	}
	c.jobs = jobs
	return c
}

// get returns nil where the job is unknown, or is so old that Temporal may have forgotten it; due says that Temporal has
// to be asked again.
func (c *closedJobs) get(id string, now time.Time) (j *job, due bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	hit, ok := c.jobs.Get(id)
	if !ok {
		return nil, false
	}
	if now.After(*hit.status.ExpiresAt) {
		c.jobs.Remove(id)
		return nil, false
	}
	return hit.job, now.Sub(hit.checked) >= recheckAfter
}

// confirm notes that Temporal has been asked about this very run.
func (c *closedJobs) confirm(j *job, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if hit, ok := c.jobs.Peek(j.id); ok && hit.runID == j.runID {
		hit.checked = now
		c.jobs.Add(j.id, hit) // in place of what was there: the size stays
	}
}

// forget drops this very run.
func (c *closedJobs) forget(j *job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if hit, ok := c.jobs.Peek(j.id); ok && hit.runID == j.runID {
		c.jobs.Remove(j.id)
	}
}

// add takes a job that has ended; from here on nobody changes it.
func (c *closedJobs) add(j *job, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(closedJob{job: j, checked: now})
}

func (c *closedJobs) put(j closedJob) {
	c.jobs.Remove(j.id)
	c.jobs.Add(j.id, j)
	c.size += sizeOf(j.job)
	for c.size > maxClosedBytes && c.jobs.Len() > 1 {
		c.jobs.RemoveOldest()
	}
}

// addBody remembers the whole answer beside the job, where it is small and the job is there still.
func (c *closedJobs) addBody(j *job, body []byte) {
	if len(body) > maxBody {
		return
	}
	with := *j
	with.body = body
	c.mu.Lock()
	defer c.mu.Unlock()
	if hit, ok := c.jobs.Peek(j.id); ok && hit.runID == j.runID {
		c.put(closedJob{job: &with, checked: hit.checked})
	}
}

// sizeOf is about what a job takes in memory.
func sizeOf(j *job) int {
	size := 1<<10 + len(j.body)
	if r := j.status.Result; r != nil {
		size += 512 * (len(r.Images) + len(r.Files) + len(r.Texts))
		for _, t := range r.Texts {
			size += len(t.Text)
		}
	}
	if f := j.status.Failure; f != nil {
		size += len(f.Message) + 1<<10*len(f.NodeErrors)
	}
	return size
}
