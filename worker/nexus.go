package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/nexus-rpc/sdk-go/nexus"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporalnexus"
	"go.temporal.io/sdk/worker"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/comfy"
)

// nexusGrace is what a job may take beside its wait and its run before Temporal itself ends it.
const nexusGrace = time.Hour

// registerNexus offers a job as a Nexus operation, for callers in other namespaces.
func registerNexus(w worker.Worker, limits activities.Limits) {
	s := nexus.NewService(comfy.NexusService)
	s.MustRegister(temporalnexus.MustNewWorkflowRunOperationWithOptions(temporalnexus.WorkflowRunOperationOptions[comfy.Request, comfy.Result]{
		Name: comfy.NexusRun,
		Handler: func(ctx context.Context, req comfy.Request, o nexus.StartOperationOptions) (temporalnexus.WorkflowHandle[comfy.Result], error) {
			return temporalnexus.ExecuteUntypedWorkflow[comfy.Result](ctx, o, nexusStart(req, o.RequestID, limits), comfy.WorkflowName, req)
		},
	}))
	w.RegisterNexusService(s)
}

// nexusStart says how a job starts. Temporal makes the request's ID, and repeats it when it repeats the call.
func nexusStart(req comfy.Request, requestID string, limits activities.Limits) client.StartWorkflowOptions {
	wait, run := limits.Start, limits.Run
	if req.StartTimeoutSeconds > 0 {
		wait = time.Duration(min(req.StartTimeoutSeconds, comfy.MaxStartTimeoutSeconds)) * time.Second
	}
	if req.TimeoutSeconds > 0 {
		run = time.Duration(min(req.TimeoutSeconds, comfy.MaxTimeoutSeconds)) * time.Second
	}
	return client.StartWorkflowOptions{
		ID: "nexus-" + requestID, TaskQueue: comfy.TaskQueue, WorkflowExecutionTimeout: wait + run + nexusGrace,
		StaticSummary: fmt.Sprintf("by Nexus: %d files", len(req.Images)),
	}
}
