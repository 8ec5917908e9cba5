package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// apart is the rest between two jobs that are compared, in which a server does what the first has left to do.
const apart = 100 * time.Millisecond

// tinyRow runs pairs: a job at ComfyUI, then one at another system; the differences are within the pairs.
func tinyRow(ctx context.Context, b *bench) error {
	direct := b.systems[0]
	clients := map[*system]*client{}
	for _, s := range b.systems {
		clients[s] = s.connect(1)
		defer clients[s].close()
	}
	at := func(s *system, held bool) (handed, error) {
		if err := pause(ctx, apart); err != nil {
			return handed{}, err
		}
		return b.one(ctx, s, clients[s], tiny(), held)
	}
	for _, s := range b.systems { // what is made once is nobody's
		if _, err := at(s, false); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	type times struct{ whole, minus, submit, held, heldMinus []time.Duration }
	all := map[*system]*times{direct: {}}
	for _, s := range b.systems {
		if all[s] == nil {
			all[s] = &times{}
		}
	}
	pair := func(s *system, held bool) error {
		d, err := at(direct, false)
		if err != nil {
			return err
		}
		all[direct].whole = append(all[direct].whole, d.whole)
		all[direct].submit = append(all[direct].submit, d.submit)
		h, err := at(s, held)
		if err != nil {
			return err
		}
		t := all[s]
		if held {
			t.held, t.heldMinus = append(t.held, h.whole), append(t.heldMinus, h.whole-d.whole)
			return nil
		}
		t.whole, t.minus, t.submit = append(t.whole, h.whole), append(t.minus, h.whole-d.whole), append(t.submit, h.submit)
		return nil
	}
	if err := b.settle(ctx, b.systems); err != nil {
		return err
	}
	var stops []func() error
	for _, s := range b.systems {
		stops = append(stops, b.profiler.begin(ctx, s, b.row))
	}
	for range b.Pairs {
		for _, s := range b.systems[1:] {
			err := pair(s, false)
			if _, can := s.adapter.(waiter); can {
				err = errors.Join(err, pair(s, true))
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				b.fault(s, "%v", err)
			}
		}
	}
	if len(b.systems) == 1 {
		for range b.Pairs {
			h, err := at(direct, false)
			if err != nil {
				return err
			}
			all[direct].whole, all[direct].submit = append(all[direct].whole, h.whole), append(all[direct].submit, h.submit)
		}
	}
	for _, stop := range stops {
		if err := stop(); err != nil {
			return err
		}
	}
	for _, s := range b.systems {
		t := all[s]
		b.durations(s, "polled every 5 ms", t.whole)
		b.durations(s, "polled, minus direct", t.minus)
		b.durations(s, "with ?wait=30", t.held)
		b.durations(s, "with ?wait=30, minus direct", t.heldMinus)
		b.durations(s, "its submission", t.submit)
	}
	return nil
}

// submitRow times submissions only, then sees every job through.
func submitRow(ctx context.Context, b *bench) error {
	return b.each(ctx, func(s *system) error {
		c := s.connect(1)
		defer c.close()
		jobs, ids := make([]job, b.Submissions), make([]string, b.Submissions)
		var took []time.Duration
		for i := range jobs {
			jobs[i] = tiny()
			began := time.Now()
			id, err := s.submit(c, jobs[i].graph)
			if err != nil {
				return err
			}
			ids[i], took = id, append(took, time.Since(began))
		}
		b.durations(s, "one submission", took)
		for i, id := range ids {
			if err := b.finish(ctx, s, c, jobs[i], id); err != nil {
				return err
			}
		}
		return nil
	})
}

func burstRow(ctx context.Context, b *bench) error { return b.burst(ctx, b.Burst) }

func bigRow(ctx context.Context, b *bench) error {
	if b.Big == 0 { // --quick
		return nil
	}
	return b.burst(ctx, b.Big)
}

// burst submits n tiny jobs at once.
func (b *bench) burst(ctx context.Context, n int) error {
	return b.each(ctx, func(s *system) error {
		jobs := make([]job, n)
		for i := range jobs {
			jobs[i] = tiny()
		}
		o, spent, err := b.crowd(ctx, s, jobs, func(f func() error) (costs, error) { return b.cost(ctx, s, f) })
		if err != nil {
			return err
		}
		b.add(s, fmt.Sprintf("%d jobs", n), "s", o.wall.Seconds())
		b.durations(s, "one submission", o.submits)
		b.add(s, "jobs lost", "", float64(o.lost))
		b.add(s, "jobs falsely ended", "", float64(o.falseEnds))
		b.add(s, "requests refused, and made again", "", float64(o.refused))
		b.addCosts(s, "job", "ms", spent, n)
		return nil
	})
}
