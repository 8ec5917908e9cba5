// Command go is another team's program: a worker whose workflows run comfyd's jobs as children, and starters for them.
// It shares one small module with comfyd, package comfy, and uses an older Temporal SDK.
//
//	go run . worker             serve the workflows below
//	go run . pipeline           generate, pick, upscale in parallel, retry one branch, cancel the rest
//	go run . fan 100            a hundred jobs at once
//	go run . nightly            run a job every night at three, by a Temporal Schedule
//
// TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, COMFYD_URL and COMFYD_API_KEY say where everything is.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/comfy/files"
)

// taskQueue is this team's own.
const taskQueue = "pictures"

// order is what the pipeline is asked for. Some of the posters run before the branch that fails has found another way.
var order = Input{Candidates: 4, Posters: 6, Enough: 2}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to do: worker, pipeline, fan or nightly")
	}
	c, err := client.DialContext(ctx, client.Options{
		HostPort: env("TEMPORAL_ADDRESS", client.DefaultHostPort), Namespace: env("TEMPORAL_NAMESPACE", client.DefaultNamespace),
		Logger: log.NewStructuredLogger(slog.New(slog.NewTextHandler(os.Stderr, nil))), // not to stdout, where the result goes
	})
	if err != nil {
		return fmt.Errorf("connecting to Temporal: %w", err)
	}
	defer c.Close()
	switch args[0] {
	case "worker":
		w := newWorker(c)
		if err := w.Start(); err != nil {
			return fmt.Errorf("starting the worker: %w", err)
		}
		<-ctx.Done()
		w.Stop()
		return nil
	case "pipeline":
		return show[Output](ctx, c, Pipeline, order)
	case "fan":
		n := 100
		if len(args) > 1 {
			if n, err = strconv.Atoi(args[1]); err != nil {
				return fmt.Errorf("how many jobs: %w", err)
			}
		}
		return show[int](ctx, c, Fan, n)
	case "nightly":
		return nightly(ctx, c, comfy.Request{Workflow: clouds(1, 0.5)})
	}
	return fmt.Errorf("%q is none of worker, pipeline, fan and nightly", args[0])
}

func newWorker(c client.Client) worker.Worker {
	w := worker.New(c, taskQueue, worker.Options{})
	for _, f := range []any{Pipeline, Fan, Single, ByNexus} {
		w.RegisterWorkflow(f)
	}
	w.RegisterActivity(&Activities{Files: files.Client{URL: env("COMFYD_URL", "http://127.0.0.1:8080"), Key: os.Getenv("COMFYD_API_KEY")}})
	return w
}

// show starts a workflow, waits for it, and prints what it returns.
func show[T any](ctx context.Context, c client.Client, workflow, input any) error {
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: taskQueue}, workflow, input)
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	var result T
	if err := run.Get(ctx, &result); err != nil {
		return fmt.Errorf("%s: %w", run.GetID(), err)
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(result)
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
