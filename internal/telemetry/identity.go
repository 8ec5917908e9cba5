package telemetry

import (
	"context"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/internal/logs"
)

// header is the Temporal header that carries the request behind a job from the API to the workflow, its activities, and
// to jobs that it starts. Headers are not compared when a workflow is replayed.
const header = "comfyd-request"

// identity is what the header holds. Headers are not encrypted where payloads are: nothing secret stands here.
type identity struct {
	RequestID string `json:"request_id,omitempty"`
	Tenant    string `json:"tenant,omitempty"`
}

type identityKey struct{}

func identityOf(ctx interface{ Value(any) any }) identity {
	id, _ := ctx.Value(identityKey{}).(identity)
	return id
}

// propagator passes the identity on. In the API it is what [logs.With] has put there.
type propagator struct{}

var _ workflow.ContextPropagator = propagator{}

// Inject implements [workflow.ContextPropagator].
func (propagator) Inject(ctx context.Context, w workflow.HeaderWriter) error {
	a := logs.Of(ctx)
	return write(identity{RequestID: a.RequestID, Tenant: a.Tenant}, w)
}

// InjectFromWorkflow implements [workflow.ContextPropagator].
func (propagator) InjectFromWorkflow(ctx workflow.Context, w workflow.HeaderWriter) error {
	return write(identityOf(ctx), w)
}

// Extract implements [workflow.ContextPropagator].
func (propagator) Extract(ctx context.Context, r workflow.HeaderReader) (context.Context, error) {
	return context.WithValue(ctx, identityKey{}, read(r)), nil
}

// ExtractToWorkflow implements [workflow.ContextPropagator].
func (propagator) ExtractToWorkflow(ctx workflow.Context, r workflow.HeaderReader) (workflow.Context, error) {
	return workflow.WithValue(ctx, identityKey{}, read(r)), nil
}

func write(id identity, w workflow.HeaderWriter) error {
	if id == (identity{}) {
		return nil
	}
	p, err := converter.GetDefaultDataConverter().ToPayload(id)
	if err == nil {
		w.Set(header, p)
	}
	return err
}

// read takes a header that it cannot read for none: a job must not fail for the sake of its log.
func read(r workflow.HeaderReader) (id identity) {
	if p, ok := r.Get(header); ok && converter.GetDefaultDataConverter().FromPayload(p, &id) != nil {
		return identity{}
	}
	return id
}
