package main

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/comfy"
)

// job starts one job as a child. It has an ID of its own, which is its call_id: GET /status/{id} serves it, too.
func job(ctx workflow.Context, id string, req comfy.Request) workflow.ChildWorkflowFuture {
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: id,
		TaskQueue:  comfy.TaskQueue, // comfyd's, not ours
		// When this parent ends, the child is asked to end, too: its prompt leaves the GPU, and it closes as canceled.
		ParentClosePolicy: enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		// A cancel counts as done when the child has stopped.
		WaitForCancellation: true,
		// Starts the job again when comfyd, the store or a GPU was to blame (comfy.Code.Retryable); what a workflow causes
		// itself is final under any policy. Each start is a run of its own, with prompts of its own.
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 5 * time.Second, BackoffCoefficient: 2, MaximumAttempts: 3},
	})
	if err := req.Check(); err != nil { // too large for Temporal, for instance
		future, fail := workflow.NewFuture(ctx)
		fail.SetError(temporal.NewNonRetryableApplicationError(err.Error(), string(comfy.InvalidWorkflow), nil))
		return refused{future}
	}
	return workflow.ExecuteChildWorkflow(ctx, comfy.WorkflowName, req)
}

// refused is a child that was never started.
type refused struct{ workflow.Future }

func (r refused) GetChildWorkflowExecution() workflow.Future { return r.Future }

func (r refused) SignalChildWorkflow(workflow.Context, string, any) workflow.Future { return r.Future }

// failureOf reads why a job has failed. The error's type is the code, and its details say the rest.
func failureOf(err error) comfy.Failure {
	var app *temporal.ApplicationError
	var canceled *temporal.CanceledError
	var f comfy.Failure
	switch {
	case errors.As(err, &app):
		if !app.HasDetails() || app.Details(&f) != nil {
			f = comfy.Failure{Message: app.Message()}
		}
		f.Code = comfy.Code(app.Type())
	case errors.As(err, &canceled):
		if canceled.HasDetails() {
			_ = canceled.Details(&f) // what it says beside the code is a bonus
		}
		f.Code = comfy.Canceled
	case err != nil: // terminated or timed out by Temporal itself
		f = comfy.Failure{Code: comfy.Internal, Message: err.Error()}
	}
	return f
}

// childID names a child after its parent, so that a person finds it, and a parent's repetition does not meet it.
func childID(ctx workflow.Context, name string, n ...int) string {
	info := workflow.GetInfo(ctx).WorkflowExecution
	id := info.ID + "." + name
	for _, i := range n {
		id += fmt.Sprintf(".%d", i)
	}
	return id + "." + info.RunID[:8]
}
