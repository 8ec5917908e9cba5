package telemetry

import (
	"context"
	"errors"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/logs"
)

// observer stands around every workflow and activity of a worker: it counts the ends of jobs, and tells the log what each
// line is about. It changes nothing of what they do, so histories replay with and without it.
type observer struct {
	interceptor.InterceptorBase
	jobs *jobs
}

// InterceptWorkflow implements [interceptor.WorkerInterceptor].
func (o *observer) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	w := &observedWorkflow{jobs: o.jobs}
	w.Next = next
	return w
}

// InterceptActivity implements [interceptor.WorkerInterceptor].
func (o *observer) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	a := &observedActivity{}
	a.Next = next
	return a
}

type observedWorkflow struct {
	interceptor.WorkflowInboundInterceptorBase
	jobs *jobs
}

// Init implements [interceptor.WorkflowInboundInterceptor].
func (w *observedWorkflow) Init(outbound interceptor.WorkflowOutboundInterceptor) error {
	o := &workflowLogger{}
	o.Next = outbound
	return w.Next.Init(o)
}

// ExecuteWorkflow counts a job, or a webhook, where its workflow ends, and not where an old end is replayed.
func (w *observedWorkflow) ExecuteWorkflow(ctx workflow.Context, in *interceptor.ExecuteWorkflowInput) (any, error) {
	ret, err := w.Next.ExecuteWorkflow(ctx, in)
	info := workflow.GetInfo(ctx)
	name := info.WorkflowType.Name
	if name != comfy.WorkflowName && name != comfy.WebhookWorkflowName || workflow.IsReplaying(ctx) || !w.jobs.first(info.WorkflowExecution.RunID) {
		return ret, err
	}
	if name == comfy.WebhookWorkflowName {
		w.jobs.told(err)
	} else if err != nil {
		w.jobs.failed(failureOf(err))
	} else if r, ok := ret.(*comfy.Result); ok {
		w.jobs.completed(r)
	}
	return ret, err
}

// failureOf reads the error with which a job has ended.
func failureOf(err error) *comfy.Failure {
	f := comfy.Failure{Code: comfy.Internal}
	var canceled *temporal.CanceledError
	var app *temporal.ApplicationError
	switch {
	case errors.As(err, &canceled):
		if !canceled.HasDetails() || canceled.Details(&f) != nil {
			f = comfy.Failure{Code: comfy.Canceled}
		}
	case errors.As(err, &app):
		if !app.HasDetails() || app.Details(&f) != nil {
			f = comfy.Failure{Code: comfy.Internal}
		}
	}
	return &f
}

// workflowLogger tells the log of a workflow about the request behind it. The SDK tells it about the rest.
type workflowLogger struct {
	interceptor.WorkflowOutboundInterceptorBase
}

// GetLogger implements [interceptor.WorkflowOutboundInterceptor].
func (w *workflowLogger) GetLogger(ctx workflow.Context) log.Logger {
	return named(w.Next.GetLogger(ctx), identityOf(ctx))
}

func named(l log.Logger, id identity) log.Logger {
	if id == (identity{}) {
		return l
	}
	return log.With(l, logs.RequestID, id.RequestID, logs.Tenant, id.Tenant)
}

type observedActivity struct {
	interceptor.ActivityInboundInterceptorBase
}

// Init implements [interceptor.ActivityInboundInterceptor].
func (a *observedActivity) Init(outbound interceptor.ActivityOutboundInterceptor) error {
	o := &activityLogger{}
	o.Next = outbound
	return a.Next.Init(o)
}

// ExecuteActivity says in the context, and in the span, what the activity is about.
func (a *observedActivity) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	info, id, span := activity.GetInfo(ctx), identityOf(ctx), trace.SpanFromContext(ctx)
	about := logs.About{
		CallID: info.WorkflowExecution.ID, RunID: info.WorkflowExecution.RunID, RequestID: id.RequestID, Tenant: id.Tenant, Backend: poolOf(info.TaskQueue),
	}
	if info.WorkflowType == nil || info.WorkflowType.Name != comfy.WorkflowName { // a sweep is about no job
		about = logs.About{}
	}
	if span.IsRecording() {
		about.TraceID = span.SpanContext().TraceID().String()
		span.SetAttributes(attribute.String(logs.RequestID, about.RequestID), attribute.String(logs.Tenant, about.Tenant),
			attribute.String(logs.Backend, about.Backend), attribute.Int("attempt", int(info.Attempt)))
	}
	return a.Next.ExecuteActivity(logs.With(ctx, about), in)
}

// poolOf is the pool whose queue this is; empty for the one of all.
func poolOf(queue string) string {
	for _, prefix := range []string{comfy.PromptTaskQueue(""), comfy.CollectTaskQueue("")} {
		if pool, ok := strings.CutPrefix(queue, prefix); ok {
			return pool
		}
	}
	return ""
}

// activityLogger does for activities what workflowLogger does.
type activityLogger struct {
	interceptor.ActivityOutboundInterceptorBase
}

// GetLogger implements [interceptor.ActivityOutboundInterceptor].
func (a *activityLogger) GetLogger(ctx context.Context) log.Logger {
	l := named(a.Next.GetLogger(ctx), identityOf(ctx))
	if b := logs.Of(ctx).Backend; b != "" {
		l = log.With(l, logs.Backend, b)
	}
	return l
}
