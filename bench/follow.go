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
	patience  = 10 * time.Second
)

// handed is what became of one job.
type handed struct {
	submit, whole time.Duration // until it was accepted; until all bytes of its images were there
	falseEnds     int           // a bad end was told, and then it completed
	result        result
	answer        []byte
	id            string
}

// follow submits a job and asks until its images are in hand, each few milliseconds, or by one request that the server holds.
func (b *bench) follow(ctx context.Context, s *system, c *client, j job, held bool) (h handed, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.Deadline)
	defer cancel()
	began := time.Now()
	if h.id, err = s.submit(c, j.graph); err != nil {
		return h, err
	}
	h.submit = time.Since(began)
	var bad time.Time
	for {
		ask := func() (state, []byte, error) { return s.poll(c, h.id) }
		if held {
			ask = func() (state, []byte, error) { return s.adapter.(waiter).wait(c, h.id, 30) }
		}
		is, answer, err := ask()
		if err != nil {
			return h, err
		}
		if is == completed {
			h.result, err = s.fetch(c, h.id, answer)
			h.answer, h.whole = answer, time.Since(began)
			return h, err
		}
		if is == ended {
			h.falseEnds++
			if bad.IsZero() {
				bad = time.Now()
			}
			if time.Since(bad) > patience {
				return h, fmt.Errorf("job %s has ended badly: %.300s", h.id, answer)
			}
		}
		if err := pause(ctx, pollEvery); err != nil {
			return h, fmt.Errorf("job %s: %w", h.id, err)
		}
	}
}

// one is follow, and what came is looked at when no clock runs any more.
func (b *bench) one(ctx context.Context, s *system, c *client, j job, held bool) (handed, error) {
	h, err := b.follow(ctx, s, c, j, held)
	if err != nil {
		return h, err
	}
	if h.falseEnds > 0 {
		b.fault(s, "job %s was told to have ended badly, %d times, and completed", h.id, h.falseEnds)
	}
	b.look(s, j, h.id, h.result)
	return h, nil
}

// look notes a fault where the images are not the job's. It says whether they are.
func (b *bench) look(s *system, j job, id string, r result) bool {
	images, err := r.images()
	if err == nil {
		err = j.check(images)
	}
	if err != nil {
		b.fault(s, "wrong bytes: job %s: %v", id, err)
	}
	return err == nil
}
