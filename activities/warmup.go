package activities

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/logs"
)

const (
	// warmUpWait is how long one attempt waits for a backend, asking each warmUpLook. It is in memory and costs nothing;
	// an attempt that Temporal makes again costs writes. It ends warmUpSpare before the activity's own deadline, to say why.
	warmUpWait  = 15 * time.Second
	warmUpSpare = time.Second
	warmUpLook  = 500 * time.Millisecond
	// maxWaiting bounds the attempts that wait in one worker; one above comes again after warmUpLater.
	maxWaiting  = 500
	warmUpLater = 15 * time.Second
)

// WarmUp answers where the job runs: the first pool, in order of preference, that has the nodes and models of the graph,
// is well and has a slot free; where all are full, the first. The pool that lost the job last comes after all others.
// It waits a while for one; then it fails with BackendUnavailable, and Temporal asks again for as long as the job may
// wait. InvalidWorkflow, when every pool that is well refuses the graph, is final.
//
// A child it checks first, as the API has done with all others.
func (a *Activities) WarmUp(ctx context.Context, job Job) (*Placement, error) {
	if !job.Child {
		return a.await(ctx, job)
	}
	c, err := a.child(ctx, &job.Request)
	if err != nil {
		return nil, err
	}
	job.Request.Images = c.Images
	place, err := a.await(ctx, job)
	if place != nil {
		place.Child = c
	}
	return place, err
}

// await waits for a pool that can take the job.
func (a *Activities) await(ctx context.Context, job Job) (*Placement, error) {
	p, err := a.prompt(ctx, job, 0, false)
	if err != nil {
		return nil, err
	}
	place, err := a.place(ctx, job, p)
	if place != nil || !errors.Is(err, errWait) {
		return place, err
	}
	if a.waiting.Add(1) > maxWaiting {
		a.waiting.Add(-1)
		return nil, againIn(warmUpLater, err)
	}
	defer a.waiting.Add(-1)
	until := time.Now().Add(a.o.Wait)
	if end := activity.GetInfo(ctx).Deadline.Add(-warmUpSpare); end.Before(until) {
		until = end
	}
	wait, done := context.WithDeadline(ctx, until)
	defer done()
	look := time.NewTicker(warmUpLook)
	defer look.Stop()
	for {
		select {
		case <-wait.Done():
			return nil, again(err)
		case <-activity.GetWorkerStopChannel(ctx):
			return nil, againIn(handOver, err)
		case <-look.C:
		}
		if place, err = a.place(ctx, job, p); place != nil || !errors.Is(err, errWait) {
			return place, err
		}
	}
}

// Look is WarmUp for a pool that is ready at this moment: it asks once and does not wait. Nil means that the job has to
// wait, or that WarmUp has to find out. It runs as a local activity, within the workflow task, so that a job whose
// backend is warm does not pay for a step of its own. A refusal counts only where there was time to be sure of it.
func (a *Activities) Look(ctx context.Context, job Job) (*Placement, error) {
	p, err := a.prompt(ctx, job, 0, false)
	if err == nil {
		var place *Placement
		if place, err = a.place(ctx, job, p); err == nil {
			return place, nil
		}
	}
	var refused *temporal.ApplicationError
	if errors.As(err, &refused) && refused.Type() == string(comfy.InvalidWorkflow) && ctx.Err() == nil {
		return nil, err
	}
	return nil, nil
}

// errWait says that asking again may help.
var errWait = errors.New("wait")

// place asks the pools once.
func (a *Activities) place(ctx context.Context, job Job, p *backend.Prompt) (*Placement, error) {
	var waits []string
	var refused *backend.Error
	var queue, avoided *backend.Pool // well, but full; well, but has just lost the job
	want := backend.WantOf(&job.Request)
	for _, b := range a.placing() {
		if !want.Fits(b.Pool()) {
			continue
		}
		p.GPU = want.GPUOf(b.Pool())
		err := b.Ready(ctx, p)
		if err == nil {
			pool := b.Pool()
			switch {
			case pool.Name == job.Avoid:
				avoided = &pool
			case !a.load.full(pool):
				return a.take(job, pool), nil
			case queue == nil:
				queue = &pool
			}
			continue
		}
		var be *backend.Error
		if errors.As(err, &be) && be.Code == comfy.InvalidWorkflow {
			refused = be
			continue
		}
		waits = append(waits, reason(err))
	}
	if queue != nil {
		return a.take(job, *queue), nil
	}
	if pool := a.elsewhere(ctx, job); pool != nil {
		return a.placement(job, *pool), nil
	}
	if avoided != nil {
		return a.take(job, *avoided), nil
	}
	if len(waits) == 0 && refused != nil {
		return nil, fail(refused)
	}
	return nil, &backend.Error{Code: comfy.BackendUnavailable, Message: strings.Join(orNone(waits, want), "; "), Cause: errWait}
}

// placing are the backends on which this worker places jobs: none while it drains.
func (a *Activities) placing() []backend.Backend {
	if a.drain.running.Load() {
		return nil
	}
	return a.o.Backends
}

// reason is what a backend says of itself, without the code before it.
func reason(err error) string {
	var be *backend.Error
	if errors.As(err, &be) {
		return be.Message
	}
	return err.Error()
}

// elsewhere finds a pool that only other workers serve; while this one drains, any that another serves.
func (a *Activities) elsewhere(ctx context.Context, job Job) *backend.Pool {
	if a.o.Elsewhere == nil {
		return nil
	}
	pools, err := a.o.Elsewhere(ctx)
	if err != nil {
		logs.In(ctx, a.o.Log).WithError(err).Warn("cannot read which pools other workers serve")
		return nil
	}
	want := backend.WantOf(&job.Request)
	var avoided *backend.Pool
	for _, p := range pools {
		switch {
		case !want.Fits(p) || a.backend(p.Name) != nil && !a.drain.running.Load():
		case p.Name == job.Avoid:
			avoided = &p
		default:
			return &p
		}
	}
	return avoided
}

// take places a job on a pool that this worker serves itself.
func (a *Activities) take(job Job, pool backend.Pool) *Placement {
	a.load.place(pool.Name, job.ID)
	return a.placement(job, pool)
}

func (a *Activities) placement(job Job, pool backend.Pool) *Placement {
	return &Placement{
		Pool:         pool,
		StartTimeout: orDefault(job.Request.StartTimeoutSeconds, a.o.Limits.Start),
		RunTimeout:   orDefault(job.Request.TimeoutSeconds, a.o.Limits.Run),
		StallTimeout: a.o.Limits.Stall,
	}
}

func orDefault(seconds int, d time.Duration) time.Duration {
	if seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	return d
}

func orNone(waits []string, w backend.Want) []string {
	if len(waits) > 0 {
		return waits
	}
	text := "no ComfyUI is ready: no worker serves a backend that the job may use"
	if w != (backend.Want{}) {
		text += fmt.Sprintf(" (it asks for backend %q, gpu %q)", w.Pool, w.GPU)
	}
	return []string{text}
}

// prompt builds the n-th submission of a job from its request. Which GPU that means, each pool tells.
func (a *Activities) prompt(ctx context.Context, job Job, n int, fresh bool) (*backend.Prompt, error) {
	raw := []byte(job.Request.Workflow)
	if job.Request.WorkflowRef != "" {
		var err error
		if raw, err = a.graph(ctx, job.Request.WorkflowRef); err != nil {
			return nil, err
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
		RunTimeout: orDefault(job.Request.TimeoutSeconds, a.o.Limits.Run),
	}
	for _, in := range job.Request.Images {
		p.Inputs = append(p.Inputs, backend.Input{
			Name: in.Name, SHA256: in.SHA256, Size: in.Size, Open: a.opener(in.Ref),
		})
	}
	return p, nil
}
