package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	temporal "go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"golang.org/x/sync/errgroup"
)

const floorQueue = "bench-floor"

// nothing is the least that a durable job can be: a workflow of one activity that does nothing.
func nothing(ctx workflow.Context) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	return workflow.ExecuteActivity(ctx, step).Get(ctx, nil)
}

func step(context.Context) error { return nil }

// floorRow measures what Temporal alone takes of a job, by the very servers that the systems have, as they have set them up:
// what nobody who is durable in the same way can be faster than. Its worker is the bench itself.
func floorRow(ctx context.Context, b *bench) error {
	return b.each(ctx, func(s *system) error {
		if s.temporal == "" {
			return nil
		}
		c, err := temporal.DialContext(ctx, temporal.Options{HostPort: s.temporal, Namespace: s.namespace, Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
			ConnectionOptions: temporal.ConnectionOptions{GrpcCompression: &temporal.GrpcCompressionNone{}}})
		if err != nil {
			return err
		}
		defer c.Close()
		w := worker.New(c, floorQueue, worker.Options{})
		w.RegisterWorkflow(nothing)
		w.RegisterActivity(step)
		if err := w.Start(); err != nil {
			return err
		}
		defer w.Stop()
		var starts, took []time.Duration
		for i := range b.Pairs + 1 {
			start, whole, err := floor(ctx, c)
			if err != nil {
				return err
			}
			if i > 0 { // what is made once is nobody's
				starts, took = append(starts, start), append(took, whole)
			}
			if err := pause(ctx, apart); err != nil {
				return err
			}
		}
		b.durations(s, "one", took)
		b.durations(s, "its start", starts)
		starts = nil
		var runs []temporal.WorkflowRun
		for range b.Submissions {
			began := time.Now()
			run, err := begin(ctx, c)
			if err != nil {
				return err
			}
			starts, runs = append(starts, time.Since(began)), append(runs, run)
		}
		for _, run := range runs {
			if err := run.Get(ctx, nil); err != nil {
				return err
			}
		}
		b.durations(s, "a start, while those before run", starts)
		var wall time.Duration
		spent, err := b.cost(ctx, s, func() error {
			began := time.Now()
			group, ctx := errgroup.WithContext(ctx)
			group.SetLimit(conns)
			for range b.Burst {
				group.Go(func() error {
					_, _, err := floor(ctx, c)
					return err
				})
			}
			err := group.Wait()
			wall = time.Since(began)
			return err
		})
		if err != nil {
			return err
		}
		b.add(s, fmt.Sprintf("%d, %d at a time", b.Burst, conns), "s", wall.Seconds())
		b.add(s, "CPU per workflow", "ms", ms(spent.own)/float64(b.Burst))
		b.add(s, "CPU per workflow: the bench itself, as its worker", "ms", ms(spent.client)/float64(b.Burst))
		return nil
	})
}

// floor runs one, and says how long its start took, and all of it to the end in hand.
func floor(ctx context.Context, c temporal.Client) (start, whole time.Duration, err error) {
	began := time.Now()
	run, err := begin(ctx, c)
	if err != nil {
		return 0, 0, err
	}
	start = time.Since(began)
	err = run.Get(ctx, nil)
	return start, time.Since(began), err
}

func begin(ctx context.Context, c temporal.Client) (temporal.WorkflowRun, error) {
	return c.ExecuteWorkflow(ctx, temporal.StartWorkflowOptions{TaskQueue: floorQueue, EnableEagerStart: true}, nothing)
}
