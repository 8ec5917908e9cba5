package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// scale is how much is done of everything.
type scale struct {
	Pairs, Submissions, Burst, Big int
	Poll, Rest                     time.Duration
	Images, Pixels                 int
	Queued                         int   // jobs of a tenth of a second between which the gaps are measured
	Waiting, Held                  int   // connections that hold, and the jobs that they wait for
	Growth                         []int // jobs in the queue, and then in the history
	Probes                         int   // jobs that are measured at each of these
	Deadline                       time.Duration
}

var (
	whole = scale{Pairs: 30, Submissions: 200, Burst: 200, Big: 1000, Poll: 5 * time.Second, Rest: 5 * time.Second,
		Images: 20, Pixels: 1024, Queued: 20, Waiting: 1000, Held: 50, Growth: []int{1, 10, 100, 1000}, Probes: 20, Deadline: 15 * time.Minute}
	quick = scale{Pairs: 2, Submissions: 10, Burst: 24, Poll: 200 * time.Millisecond, Rest: 200 * time.Millisecond,
		Images: 3, Pixels: 256, Queued: 3, Waiting: 64, Held: 4, Growth: []int{1, 4}, Probes: 3, Deadline: 5 * time.Minute}
)

// conns is how many connections a load has.
const conns = 16

// row is one thing that is measured, for every system that can do it.
type row struct {
	id, title string
	run       func(ctx context.Context, b *bench) error
}

// bench is a run of rows over systems that are all up at the same time, on one ComfyUI.
type bench struct {
	scale
	programs
	comfy    *comfyui
	systems  []*system
	out      *results
	run      int
	row      string // the one that is being measured
	profiler *profiler
}

// start brings the systems up, one after the other.
func (b *bench) start(ctx context.Context, chosen []kind, dir string) error {
	if err := b.comfy.forget(); err != nil {
		return err
	}
	for _, k := range chosen {
		began := time.Now()
		s, err := k.start(ctx, b.programs, b.comfy, filepath.Join(dir, k.name))
		var out leftOut
		if errors.As(err, &out) {
			fmt.Fprintf(os.Stderr, "  %s is left out: %s\n", k.name, out)
			continue
		}
		if err != nil {
			return fmt.Errorf("starting %s: %w", k.name, err)
		}
		s.name, s.title = k.name, k.title
		b.systems = append(b.systems, s)
		fmt.Fprintf(os.Stderr, "  %s is up, %.1f s\n", k.name, time.Since(began).Seconds())
	}
	return nil
}

// stop takes them down.
func (b *bench) stop() error {
	var errs []error
	for _, s := range slices.Backward(b.systems) {
		errs = append(errs, s.stop())
	}
	b.systems = nil
	return errors.Join(errs...)
}

// rows measures each of them.
func (b *bench) rows(ctx context.Context, chosen []row) error {
	for _, r := range chosen {
		b.row = r.id
		began := time.Now()
		if err := r.run(ctx, b); err != nil {
			return fmt.Errorf("row %s: %w", r.id, err)
		}
		fmt.Fprintf(os.Stderr, "  %s, %.1f s\n", r.id, time.Since(began).Seconds())
	}
	return nil
}

// each measures the systems one after the other, each run beginning with another one. What one fails at is a fault, and the
// others are measured all the same.
func (b *bench) each(ctx context.Context, f func(s *system) error) error {
	for i := range b.systems {
		s := b.systems[(i+b.run)%len(b.systems)]
		if err := b.settle(ctx, b.systems); err != nil {
			return err
		}
		if err := b.comfy.clear(); err != nil {
			return err
		}
		stop := b.profiler.begin(ctx, s, b.row)
		err := f(s)
		if err = errors.Join(err, stop()); ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.fault(s, "%v", err)
		}
	}
	return nil
}

// quietly is how much of a core the systems may use together before the next one is measured.
const quietly = 0.1

// settle waits until systems have done what jobs leave them to do, so that nobody is charged with it but they. It gives up
// after a while: what rests there is a system's own.
func (b *bench) settle(ctx context.Context, systems []*system) error {
	all := []process{b.comfy.process()}
	for _, s := range systems {
		all = append(all, s.processes...)
	}
	const slice = 200 * time.Millisecond
	for end := time.Now().Add(min(10*time.Second, 3*b.Rest)); time.Now().Before(end); {
		before, err := total(all)
		if err != nil {
			return err
		}
		if err := pause(ctx, slice); err != nil {
			return err
		}
		after, err := total(all)
		if err != nil {
			return err
		}
		if (after - before).Seconds() < quietly*slice.Seconds() {
			return nil
		}
	}
	return nil
}

func total(all []process) (sum time.Duration, err error) {
	for _, p := range all {
		cpu, err := p.cpu()
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errNotLinux, err)
		}
		sum += cpu
	}
	return sum, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// add notes a figure of the row that is being measured.
func (b *bench) add(s *system, metric, unit string, value float64) {
	b.out.Samples = append(b.out.Samples, sample{Run: b.run, Row: b.row, System: s.name, Metric: metric, Unit: unit, Value: value, Load: load()})
}

// fault notes something that must not be: a lost job, a false end, wrong bytes, or a row that could not be measured.
func (b *bench) fault(s *system, format string, args ...any) {
	f := fault{Run: b.run, Row: b.row, System: s.name, What: fmt.Sprintf(format, args...)}
	b.out.Faults = append(b.out.Faults, f)
	fmt.Fprintln(os.Stderr, "  !", f)
}

// durations adds the median and the 99th percentile of what was timed.
func (b *bench) durations(s *system, what string, all []time.Duration) {
	if len(all) == 0 {
		return
	}
	b.add(s, what+", p50", "ms", ms(percentile(all, 50)))
	b.add(s, what+", p99", "ms", ms(percentile(all, 99)))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
