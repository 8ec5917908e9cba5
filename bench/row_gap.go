package main

import (
	"context"
	"fmt"
	"time"
)

// gapRow queues jobs that keep the GPU busy for 100 ms each. Between the end of one job's node and the beginning of the
// next one's the GPU is idle: ComfyUI saves the image, ends the prompt and begins the next one, and where no next one waits
// in its queue, somebody else has to bring it.
func gapRow(ctx context.Context, b *bench) error {
	return b.each(ctx, func(s *system) error {
		var jobs []job
		of := map[int64]bool{}
		for range b.Queued {
			j := work(0.1)
			jobs, of[j.value] = append(jobs, j), true
		}
		free := func(f func() error) (costs, error) { return costs{}, f() }
		if _, _, err := b.crowd(ctx, s, jobs, free); err != nil {
			return err
		}
		spans, err := b.comfy.worked(of)
		if err != nil {
			return err
		}
		if len(spans) != len(jobs) {
			b.fault(s, "%d runs of %d jobs", len(spans), len(jobs))
		}
		var gaps []time.Duration
		for i := range spans[1:] {
			gaps = append(gaps, time.Duration((spans[i+1].began-spans[i].ended)*float64(time.Second)))
		}
		b.durations(s, "gap", gaps)
		b.add(s, fmt.Sprintf("%d jobs, from the first node's beginning", len(spans)), "s", spans[len(spans)-1].ended-spans[0].began)
		return nil
	})
}
