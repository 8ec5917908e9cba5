package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// eachPoll is how long a client of many jobs leaves one alone between two polls.
const eachPoll = 250 * time.Millisecond

// crowd is a client of many jobs over a few connections: it submits them all, then asks for each until it has its images.
type crowd struct {
	b *bench
	s *system
	c *client

	jobs []*crowdJob
	due  chan *crowdJob // the next one to be asked for
	left atomic.Int64   // jobs that have no end yet
	next atomic.Int64   // the next one to be submitted
	// refused counts answers that were errors; the request is made again.
	refused atomic.Int64
}

type crowdJob struct {
	job
	id        string
	submit    time.Duration
	ask       time.Time // not sooner
	falseEnds int
	bad       time.Time // when a bad end was told first
	lost      string    // why it is
	got       result
}

// outcome is what became of a crowd's jobs.
type outcome struct {
	wall            time.Duration
	submits         []time.Duration
	lost, falseEnds int
	refused         int
}

// crowd runs jobs to their ends and looks at every image. Jobs that are lost, falsely ended or wrong are faults.
func (b *bench) crowd(ctx context.Context, s *system, jobs []job, during func(f func() error) (costs, error)) (outcome, costs, error) {
	w := &crowd{b: b, s: s, c: s.connect(conns), due: make(chan *crowdJob, len(jobs))}
	defer w.c.close()
	for _, j := range jobs {
		w.jobs = append(w.jobs, &crowdJob{job: j})
	}
	var o outcome
	spent, err := during(func() error {
		began := time.Now()
		w.run(ctx)
		o.wall = time.Since(began)
		return context.Cause(ctx)
	})
	if err != nil {
		return o, spent, err
	}
	o.refused = int(w.refused.Load())
	for _, j := range w.jobs {
		o.submits = append(o.submits, j.submit)
		switch {
		case j.lost != "":
			o.lost++
			b.fault(s, "lost: job %s: %s", j.id, j.lost)
			continue
		case j.falseEnds > 0:
			o.falseEnds++
		}
		b.judge(s, j.job, j.id, j.got, 0) // false ends are told together
	}
	if o.falseEnds > 0 {
		b.fault(s, "%d of %d jobs were told to have ended badly, and completed", o.falseEnds, len(jobs))
	}
	return o, spent, nil
}

// run ends when every job has an end, or the deadline has passed.
func (w *crowd) run(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, w.b.Deadline)
	defer cancel()
	w.left.Store(int64(len(w.jobs)))
	var all sync.WaitGroup
	for range conns {
		all.Go(func() {
			w.submitAll(ctx)
			for j := range w.due {
				if pause(ctx, time.Until(j.ask)) != nil {
					w.end(j, "no end before the deadline")
				} else {
					w.poll(ctx, j)
				}
			}
		})
	}
	all.Wait()
}

// submitAll takes jobs until all are submitted. A refusal is tried again.
func (w *crowd) submitAll(ctx context.Context) {
	for {
		i := int(w.next.Add(1)) - 1
		if i >= len(w.jobs) {
			return
		}
		j := w.jobs[i]
		for {
			began := time.Now()
			id, err := w.s.submit(w.c, j.graph)
			if err == nil {
				j.id, j.submit, j.ask = id, time.Since(began), time.Now()
				w.due <- j
				break
			}
			w.refused.Add(1)
			if pause(ctx, eachPoll) != nil {
				w.end(j, fmt.Sprintf("never accepted: %v", err))
				break
			}
		}
	}
}

// poll asks for a job once.
func (w *crowd) poll(ctx context.Context, j *crowdJob) {
	is, answer, err := w.s.poll(w.c, j.id)
	if err == nil && is == completed {
		j.got, err = w.s.fetch(w.c, j.id, answer)
	}
	switch {
	case err != nil:
		w.refused.Add(1)
	case is == completed:
		w.end(j, "")
		return
	case is == ended:
		j.falseEnds++
		if j.bad.IsZero() {
			j.bad = time.Now()
		}
		if time.Since(j.bad) > patience {
			w.end(j, fmt.Sprintf("ended badly: %.300s", answer))
			return
		}
	}
	if ctx.Err() != nil {
		w.end(j, "no end before the deadline")
		return
	}
	j.ask = time.Now().Add(eachPoll)
	w.due <- j
}

// end notes a job's end; the last one ends the crowd.
func (w *crowd) end(j *crowdJob, lost string) {
	j.lost = lost
	if w.left.Add(-1) == 0 {
		close(w.due)
	}
}
