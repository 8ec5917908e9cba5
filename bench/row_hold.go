package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// holdRow has many connections wait for jobs behind one that holds the GPU, lets that go, and counts who is answered.
func holdRow(ctx context.Context, b *bench) error {
	return b.each(ctx, func(s *system) error {
		if _, can := s.adapter.(waiter); !can {
			return nil
		}
		c := s.connect(b.Waiting)
		defer c.close()
		jobs := []job{gated()}
		for range b.Held - 1 {
			jobs = append(jobs, tiny())
		}
		ids := make([]string, len(jobs))
		for i, j := range jobs {
			id, err := s.submit(c, j.graph)
			if err != nil {
				return err
			}
			ids[i] = id
		}
		if err := b.runs(ctx, jobs[0]); err != nil {
			return err
		}
		before, _, _, err := s.memory()
		if err != nil {
			return err
		}
		h := &holders{b: b, s: s, c: c}
		all := h.begin(ctx, ids)
		at, err := b.used(s)
		if err != nil {
			return err
		}
		if err := pause(ctx, b.Rest); err != nil {
			return err
		}
		spent, err := b.used(s)
		if err != nil {
			return err
		}
		during, _, _, err := s.memory()
		if err != nil {
			return err
		}
		early := h.early.Load()
		released := time.Now()
		if err := b.comfy.open(jobs[0]); err != nil {
			return err
		}
		all.Wait()
		b.add(s, "connections", "", float64(b.Waiting))
		b.add(s, "answered before an end, while they held", "", float64(early))
		b.add(s, "memory more while they hold", "MiB", during-before)
		b.add(s, "CPU while they hold", "% of a core", 100*(spent.own-at.own).Seconds()/b.Rest.Seconds())
		b.add(s, "all answered, after the first job was let go", "s", time.Since(released).Seconds())
		b.add(s, "never answered rightly", "", float64(h.lost.Load()))
		if n := h.lost.Load(); n > 0 {
			b.fault(s, "%d of %d connections that held were never told of their job's end", n, b.Waiting)
		}
		for i, j := range jobs {
			if err := b.finish(ctx, s, c, j, ids[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// holders are connections that each wait for one job's end.
type holders struct {
	b *bench
	s *system
	c *client
	// early counts answers without an end, lost those that never had a good one.
	early, lost atomic.Int64
}

func (h *holders) begin(ctx context.Context, ids []string) *sync.WaitGroup {
	all := &sync.WaitGroup{}
	for i := range h.b.Waiting {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, h.b.Deadline)
			defer cancel()
			for ctx.Err() == nil {
				is, _, err := h.s.adapter.(waiter).wait(h.c, ids[i%len(ids)], 60)
				if err == nil && is == completed {
					return
				}
				if err != nil || is == ended {
					break
				}
				h.early.Add(1)
				if pause(ctx, time.Second) != nil { // who is sent away at once does not come back at once
					break
				}
			}
			h.lost.Add(1)
		})
	}
	return all
}
