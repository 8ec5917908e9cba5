package main

import (
	"context"
	"fmt"
	"time"
)

// pollEvery is how often a client asks for its one job, and patience how long one that was told of a bad end goes on
// asking, to see whether that was true.
const (
	pollEvery = 5 * time.Millisecond
	patience  = time.Minute
)

// handed is what became of one job.
type handed struct {
	id            string
	submit, whole time.Duration // until it was accepted; until all bytes of its images were there
	result        result
}

// one submits a job and asks until its images are in hand, each few milliseconds, or by requests that the server holds.
func (b *bench) one(ctx context.Context, s *system, c *client, j job, held bool) (h handed, err error) {
	began := time.Now()
	if h.id, err = s.submit(c, j.graph); err != nil {
		return h, err
	}
	h.submit = time.Since(began)
	got, falseEnds, err := b.await(ctx, s, c, h.id, held)
	if err != nil {
		return h, err
	}
	h.whole, h.result = time.Since(began), got
	b.judge(s, j, h.id, got, falseEnds)
	return h, nil
}

// finish sees a job through that was submitted before.
func (b *bench) finish(ctx context.Context, s *system, c *client, j job, id string) error {
	_, held := s.adapter.(waiter)
	got, falseEnds, err := b.await(ctx, s, c, id, held)
	if err == nil {
		b.judge(s, j, id, got, falseEnds)
	}
	return err
}

// await asks until the images are there. It counts how often the job was told to have ended badly before it completed.
func (b *bench) await(ctx context.Context, s *system, c *client, id string, held bool) (got result, falseEnds int, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.Deadline)
	defer cancel()
	ask := func() (state, []byte, error) { return s.poll(c, id) }
	if held {
		ask = func() (state, []byte, error) { return s.adapter.(waiter).wait(c, id, 30) }
	}
	var bad time.Time
	for {
		is, answer, err := ask()
		switch {
		case err != nil:
			return got, falseEnds, err
		case is == completed:
			got, err = s.fetch(c, id, answer)
			return got, falseEnds, err
		case is == ended:
			if falseEnds++; falseEnds == 1 {
				bad = time.Now()
			}
			if time.Since(bad) > patience {
				return got, falseEnds, fmt.Errorf("lost: job %s has ended badly: %.300s", id, answer)
			}
		}
		if err := pause(ctx, pollEvery); err != nil {
			return got, falseEnds, fmt.Errorf("lost: job %s has no end: %w", id, err)
		}
	}
}

// judge looks at what came, when no clock runs any more.
func (b *bench) judge(s *system, j job, id string, got result, falseEnds int) {
	if falseEnds > 0 {
		b.fault(s, "job %s was told to have ended badly, and completed", id)
	}
	images, err := got.images()
	if err == nil {
		err = j.check(images)
	}
	if err != nil {
		b.fault(s, "wrong bytes: job %s: %v", id, err)
	}
}
