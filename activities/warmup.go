package activities

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// WarmUp answers where the job runs: the first pool, in order of preference, that has the nodes and models of the graph
// and is well. While none is, it fails with BackendUnavailable and Temporal asks again, so that waiting takes no slot
// and leaves no history; InvalidWorkflow, when every pool that is well refuses the graph, is final.
func (a *Activities) WarmUp(ctx context.Context, job Job) (*Placement, error) {
	p, err := a.prompt(ctx, job, 0, false)
	if err != nil {
		return nil, err
	}
	var waits []string
	var refused *backend.Error
	for _, b := range a.o.Backends {
		if !wanted(job, b.Pool()) {
			continue
		}
		err := b.Ready(ctx, p)
		if err == nil {
			return a.placement(job, b.Pool()), nil
		}
		var be *backend.Error
		if errors.As(err, &be) && be.Code == comfy.InvalidWorkflow {
			refused = be
			continue
		}
		waits = append(waits, err.Error())
	}
	if pool := a.elsewhere(ctx, job); pool != nil {
		return a.placement(job, *pool), nil
	}
	if len(waits) == 0 && refused != nil {
		return nil, fail(refused)
	}
	return nil, again(backend.Errorf(comfy.BackendUnavailable, "no ComfyUI is ready: %s", strings.Join(orNone(waits), "; ")))
}

// elsewhere finds a pool that only other workers serve.
func (a *Activities) elsewhere(ctx context.Context, job Job) *backend.Pool {
	if a.o.Elsewhere == nil {
		return nil
	}
	pools, err := a.o.Elsewhere(ctx)
	if err != nil {
		a.o.Log.WithError(err).Warn("cannot read which pools other workers serve")
		return nil
	}
	for _, p := range pools {
		if wanted(job, p) && a.backend(p.Name) == nil {
			return &p
		}
	}
	return nil
}

func (a *Activities) placement(job Job, pool backend.Pool) *Placement {
	return &Placement{
		Pool:         pool,
		StartTimeout: orDefault(job.Request.StartTimeoutSeconds, a.o.Limits.Start),
		RunTimeout:   orDefault(job.Request.TimeoutSeconds, a.o.Limits.Run),
		StallTimeout: a.o.Limits.Stall,
	}
}

// wanted tells whether the job asks for this pool, by its name or its kind, or for none in particular.
func wanted(job Job, p backend.Pool) bool {
	w := job.Request.Backend
	return w == "" || w == p.Name || w == p.Kind
}

func orDefault(seconds int, d time.Duration) time.Duration {
	if seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	return d
}

func orNone(waits []string) []string {
	if len(waits) == 0 {
		return []string{"no worker serves a backend that the job may use"}
	}
	return waits
}

// prompt builds the n-th submission of a job from its request.
func (a *Activities) prompt(ctx context.Context, job Job, n int, fresh bool) (*backend.Prompt, error) {
	raw := []byte(job.Request.Workflow)
	if job.Request.WorkflowRef != "" {
		var err error
		if raw, err = a.read(ctx, job.Request.WorkflowRef); err != nil {
			return nil, again(fmt.Errorf("reading the workflow from the store: %w", err))
		}
	}
	g, err := comfy.ParseGraph(raw)
	if err != nil {
		e := &backend.Error{Code: comfy.InvalidWorkflow, Message: err.Error()}
		var ge *comfy.GraphError
		if errors.As(err, &ge) {
			e.NodeErrors = ge.NodeErrors
		}
		return nil, fail(e)
	}
	p := &backend.Prompt{
		JobID: job.ID, ID: PromptID(job, n), Submission: n, Graph: g,
		ExtraPNGInfo: job.Request.ExtraPNGInfo, Fresh: fresh, StallTimeout: a.o.Limits.Stall,
	}
	for _, in := range job.Request.Images {
		p.Inputs = append(p.Inputs, backend.Input{
			Name: in.Name, SHA256: in.SHA256, Size: in.Size, Open: a.opener(in.Ref),
		})
	}
	return p, nil
}
