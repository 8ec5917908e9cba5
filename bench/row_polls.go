package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pollsDoneRow asks for one finished tiny job again and again.
func pollsDoneRow(ctx context.Context, b *bench) error {
	return b.each(ctx, func(s *system) error {
		c := s.connect(conns)
		defer c.close()
		h, err := b.one(ctx, s, c, tiny(), false)
		if err != nil {
			return err
		}
		return b.polls(ctx, s, c, h.id, completed)
	})
}

// pollsRunningRow asks for one job that stays on the GPU meanwhile.
func pollsRunningRow(ctx context.Context, b *bench) error {
	return b.each(ctx, func(s *system) error {
		c := s.connect(conns)
		defer c.close()
		j := gated()
		id, err := s.submit(c, j.graph)
		if err != nil {
			return err
		}
		if err := b.runs(ctx, j); err != nil {
			return err
		}
		if err := b.polls(ctx, s, c, id, open); err != nil {
			return err
		}
		if err := b.comfy.open(j); err != nil {
			return err
		}
		return b.finish(ctx, s, c, j, id)
	})
}

// runs waits until ComfyUI says that it runs a job.
func (b *bench) runs(ctx context.Context, j job) error {
	ctx, cancel := context.WithTimeout(ctx, b.Deadline)
	defer cancel()
	for {
		is, err := b.comfy.runs(j)
		if is || err != nil {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("the gated job does not begin to run: %w", err)
		}
	}
}

// polls asks over all connections for a while. Every answer must be of one state.
func (b *bench) polls(ctx context.Context, s *system, c *client, id string, want state) error {
	took := make([][]time.Duration, conns)
	wrong := make([]int, conns)
	errs := make([]error, conns)
	var wall time.Duration
	spent, err := b.cost(ctx, s, func() error {
		began := time.Now()
		var all sync.WaitGroup
		for i := range conns {
			all.Go(func() {
				for last := began; last.Sub(began) < b.Poll && errs[i] == nil; {
					is, _, err := s.poll(c, id)
					now := time.Now()
					took[i] = append(took[i], now.Sub(last))
					if last = now; err != nil {
						errs[i] = err
					} else if is != want {
						wrong[i]++
					}
				}
			})
		}
		all.Wait()
		wall = time.Since(began)
		return context.Cause(ctx)
	})
	if err != nil {
		return err
	}
	var every []time.Duration
	bad := 0
	for i := range conns {
		if errs[i] != nil {
			return errs[i]
		}
		every = append(every, took[i]...)
		bad += wrong[i]
	}
	if bad > 0 {
		b.fault(s, "%d of %d polls told another state than the job was in", bad, len(every))
	}
	b.add(s, "polls a second", "", float64(len(every))/wall.Seconds())
	b.durations(s, "one poll", every)
	b.addCosts(s, "poll", "µs", spent, len(every))
	return nil
}
