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
		var took []time.Duration
		for i := range b.Pairs + 1 {
			began := time.Now()
			if err := floor(ctx, c); err != nil {
				return err
			}
			if i > 0 { // what is made once is nobody's
				took = append(took, time.Since(began))
			}
			if err := pause(ctx, apart); err != nil {
				return err
			}
		}
		b.durations(s, "one", took)
		var wall time.Duration
		spent, err := b.cost(ctx, s, func() error {
			began := time.Now()
			group, ctx := errgroup.WithContext(ctx)
			group.SetLimit(conns)
			for range b.Burst {
				group.Go(func() error { return floor(ctx, c) })
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

// floor runs one from its start to its end in hand.
func floor(ctx context.Context, c temporal.Client) error {
	run, err := c.ExecuteWorkflow(ctx, temporal.StartWorkflowOptions{TaskQueue: floorQueue, EnableEagerStart: true}, nothing)
	if err != nil {
		return err
	}
	return run.Get(ctx, nil)
}
