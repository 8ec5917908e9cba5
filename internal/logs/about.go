package logs

import (
	"context"

	"github.com/sirupsen/logrus"
)

// Fields of lines that are about a job, beside [CallID]. API, workflows, activities and backends use the same names.
const (
	RunID     = "run_id"     // of the workflow
	RequestID = "request_id" // of the HTTP request that submitted the job: its X-Request-Id
	Tenant    = "tenant"
	Backend   = "backend"  // the pool
	TraceID   = "trace_id" // of OpenTelemetry, where the job is traced
)

// About is the job, and the request behind it, that a piece of work is about. Empty fields are unknown.
type About struct{ CallID, RunID, RequestID, Tenant, Backend, TraceID string }

type aboutKey struct{}

// With returns a context whose work is about a.
func With(ctx context.Context, a About) context.Context { return context.WithValue(ctx, aboutKey{}, a) }

// Of tells what the work of ctx is about.
func Of(ctx context.Context) About {
	a, _ := ctx.Value(aboutKey{}).(About)
	return a
}

// In returns l with what the work of ctx is about on every line.
func In(ctx context.Context, l logrus.FieldLogger) logrus.FieldLogger {
	a := Of(ctx)
	f := logrus.Fields{}
	for name, value := range map[string]string{
		CallID: a.CallID, RunID: a.RunID, RequestID: a.RequestID, Tenant: a.Tenant, Backend: a.Backend, TraceID: a.TraceID,
	} {
		if value != "" {
			f[name] = value
		}
	}
	if len(f) == 0 {
		return l
	}
	return l.WithFields(f)
}
