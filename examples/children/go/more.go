package main

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/comfy"
)

// Fan runs n small jobs at once and returns how many of them made a picture.
func Fan(ctx workflow.Context, n int) (int, error) {
	var jobs []workflow.ChildWorkflowFuture
	for i := range n {
		jobs = append(jobs, job(ctx, childID(ctx, "fan", i), comfy.Request{Workflow: clouds(i, 0.5)}))
	}
	done := 0
	for i, j := range jobs {
		var r comfy.Result
		if err := j.Get(ctx, &r); err != nil {
			return done, fmt.Errorf("job %d: %w", i, err)
		}
		done += len(r.Images)
	}
	return done, nil
}

// Single runs one job, and is what a schedule starts every night.
func Single(ctx workflow.Context, req comfy.Request) (*comfy.Result, error) {
	var r comfy.Result
	if err := job(ctx, childID(ctx, "job"), req).Get(ctx, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// ByNexus runs one job from another namespace, where comfyd's workflow cannot be a child.
func ByNexus(ctx workflow.Context, req comfy.Request) (*comfy.Result, error) {
	if err := req.Check(); err != nil {
		return nil, fmt.Errorf("the job is not sent: %w", err)
	}
	c := workflow.NewNexusClient(comfy.NexusEndpoint, comfy.NexusService)
	var r comfy.Result
	err := c.ExecuteOperation(ctx, comfy.NexusRun, req, workflow.NexusOperationOptions{ScheduleToCloseTimeout: 2 * time.Hour}).Get(ctx, &r)
	if err != nil {
		return nil, err
	}
	return &r, nil
}
