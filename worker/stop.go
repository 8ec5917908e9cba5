package worker

import (
	"context"
	"sync"
	"time"
)

// Drains tells how long Drain may take: 0 where every pool lets go of its prompts at once.
func (w *Worker) Drains() (longest time.Duration) {
	for _, p := range w.prompts {
		longest = max(longest, p.drain)
	}
	return longest
}

// Drain takes no more prompts, and follows those that run to their end, their outputs collected, for as long as their
// pools are granted, or ctx lasts. Meanwhile jobs are placed elsewhere, and all else is served as before. What is left then
// is Stop's.
func (w *Worker) Drain(ctx context.Context) {
	ctx, done := context.WithTimeout(ctx, w.Drains())
	defer done()
	var held []string
	for _, p := range w.prompts {
		if p.drain > 0 {
			held = append(held, p.pool)
		}
	}
	w.activities.Drain(held...)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		var all sync.WaitGroup
		for _, p := range w.prompts {
			all.Go(p.Stop)
		}
		all.Go(func() { w.leave(ctx) })
		all.Wait()
	}()
	select {
	case <-stopped:
		w.activities.Settle(ctx)
	case <-ctx.Done():
	}
}

// leave tells others that this worker takes no more jobs.
func (w *Worker) leave(ctx context.Context) {
	ctx, done := context.WithTimeout(ctx, leaveTimeout)
	defer done()
	w.publisher.Leave(ctx)
}

// Stop takes no more work, lets go of running prompts (which another worker, or the next start, goes on with), and
// cleans up after the jobs that have ended.
func (w *Worker) Stop(ctx context.Context) {
	w.activities.LetGo()
	w.rescuer.stop()
	w.versions.stop()
	var all sync.WaitGroup
	all.Go(func() { w.leave(ctx) })
	for _, n := range w.workers {
		all.Go(n.Stop)
	}
	all.Wait()
	w.publisher.Stop()
	w.activities.Close(ctx)
}
