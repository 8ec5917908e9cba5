package main

import (
	"context"
	"fmt"
	"time"
)

// growthRow asks what one more job costs where many wait already, and what one costs where many have been. For each size it
// fills the queue behind a job that holds the GPU, lets it run empty, and has that many jobs more in the history.
func growthRow(ctx context.Context, b *bench) error {
	return b.each(ctx, func(s *system) error {
		c := s.connect(conns)
		defer c.close()
		for _, n := range b.Growth {
			if err := b.queueOf(ctx, s, c, n); err != nil {
				return err
			}
			if err := b.historyOf(ctx, s, c, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// queueOf fills the queue with n jobs and measures submissions, polls, and how it runs empty.
func (b *bench) queueOf(ctx context.Context, s *system, c *client, n int) error {
	at := fmt.Sprintf("queue of %d: ", n)
	gate := gated()
	first, err := s.submit(c, gate.graph)
	if err != nil {
		return err
	}
	if err := b.runs(ctx, gate); err != nil {
		return err
	}
	var jobs []job
	var ids []string
	submit := func(n int) (took []time.Duration, err error) {
		for range n {
			j := tiny()
			began := time.Now()
			id, err := s.submit(c, j.graph)
			if err != nil {
				return nil, err
			}
			jobs, ids, took = append(jobs, j), append(ids, id), append(took, time.Since(began))
		}
		return took, nil
	}
	if _, err := submit(n); err != nil {
		return err
	}
	var submits, polls []time.Duration
	spent, err := b.cost(ctx, s, func() (err error) {
		submits, err = submit(b.Probes)
		return err
	})
	if err != nil {
		return err
	}
	b.add(s, at+"one submission, p50", "ms", ms(percentile(submits, 50)))
	b.add(s, at+"CPU per submission", "ms", ms(b.ownOr(s, spent))/float64(b.Probes))
	for i := range b.Probes { // each another job, so that none is told from memory
		began := time.Now()
		if _, _, err := s.poll(c, ids[len(ids)-1-i]); err != nil {
			return err
		}
		polls = append(polls, time.Since(began))
	}
	b.add(s, at+"one poll, p50", "ms", ms(percentile(polls, 50)))

	var wall time.Duration
	spent, err = b.cost(ctx, s, func() error {
		began := time.Now()
		if err := b.comfy.open(gate); err != nil {
			return err
		}
		// The last one ends last, where the order is kept; the others are looked at after it.
		last := len(ids) - 1
		if err := b.finish(ctx, s, c, jobs[last], ids[last]); err != nil {
			return err
		}
		wall = time.Since(began)
		return nil
	})
	if err != nil {
		return err
	}
	b.add(s, at+"each job, while it runs empty", "ms", ms(wall)/float64(len(ids)))
	b.add(s, at+"CPU per job, while it runs empty", "ms", ms(b.ownOr(s, spent))/float64(len(ids)))
	for i, id := range append(ids, first) {
		if err := b.finish(ctx, s, c, append(jobs, gate)[i], id); err != nil {
			return err
		}
	}
	return nil
}

// historyOf measures single jobs where at least n have been.
func (b *bench) historyOf(ctx context.Context, s *system, c *client, n int) error {
	at := fmt.Sprintf("history of %d: ", n)
	var whole []time.Duration
	_, held := s.adapter.(waiter)
	spent, err := b.cost(ctx, s, func() error {
		for range b.Probes {
			h, err := b.one(ctx, s, c, tiny(), held)
			if err != nil {
				return err
			}
			whole = append(whole, h.whole)
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.add(s, at+"a tiny job, p50", "ms", ms(percentile(whole, 50)))
	b.add(s, at+"CPU per job", "ms", ms(b.ownOr(s, spent))/float64(b.Probes))
	return nil
}

// ownOr is what the system's own processes have used; ComfyUI's where it is the system.
func (b *bench) ownOr(s *system, c costs) time.Duration {
	if len(s.processes) == 0 {
		return c.comfyui
	}
	return c.own
}
