package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
)

const (
	// rescueEvery is how often a worker looks for pools that nobody serves any more.
	rescueEvery = 10 * time.Second
	// rescueTimeout bounds one look, with the signals of all jobs that it finds.
	rescueTimeout = 5 * time.Minute
)

// rescuer tells jobs that wait at a pool whose last worker is gone, so that they go elsewhere. Every worker has one; they
// do the same, and a job that is told twice passes the second word over.
type rescuer struct {
	client    client.Client
	directory *catalog.Directory
	goneAfter time.Duration
	log       logrus.FieldLogger
	cancel    context.CancelFunc
	gone      chan struct{}
}

func newRescuer(o Options) *rescuer {
	return &rescuer{client: o.Client, directory: o.Directory, goneAfter: o.GoneAfter, log: o.Log}
}

func (r *rescuer) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.gone = cancel, make(chan struct{})
	go func() {
		defer close(r.gone)
		tick := time.NewTicker(rescueEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := r.look(ctx); err != nil && ctx.Err() == nil {
				r.log.WithError(err).Debug("cannot look for jobs at pools without a worker")
			}
		}
	}()
}

func (r *rescuer) stop() {
	if r.cancel != nil {
		r.cancel()
		<-r.gone
	}
}

// look tells the jobs of every pool that is gone.
func (r *rescuer) look(ctx context.Context) error {
	ctx, done := context.WithTimeout(ctx, rescueTimeout)
	defer done()
	pools, err := r.directory.Gone(ctx)
	if err != nil {
		return err
	}
	for _, pool := range pools {
		polled, err := r.polled(ctx, pool)
		if err != nil {
			return err
		}
		if polled {
			continue
		}
		if err := r.tell(ctx, pool); err != nil {
			return err
		}
	}
	return nil
}

// polled tells whether somebody has asked for the pool's prompts of late, by Temporal's clock as well as ours: a worker
// that cannot reach the store, where the records lie, may still be at work.
func (r *rescuer) polled(ctx context.Context, pool string) (bool, error) {
	q, err := r.client.DescribeTaskQueue(ctx, comfy.PromptTaskQueue(pool), enums.TASK_QUEUE_TYPE_ACTIVITY)
	if err != nil {
		return false, fmt.Errorf("asking Temporal who serves the pool %s: %w", pool, err)
	}
	for _, p := range q.GetPollers() {
		if time.Since(p.GetLastAccessTime().AsTime()) < r.goneAfter {
			return true, nil
		}
	}
	return false, nil
}

// tell signals the open jobs of a pool.
func (r *rescuer) tell(ctx context.Context, pool string) error {
	query := fmt.Sprintf("WorkflowType = '%s' AND ExecutionStatus = 'Running' AND %s = '%s'", comfy.WorkflowName, comfy.AttrBackend, pool)
	var page []byte
	told := 0
	for {
		list, err := r.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query, NextPageToken: page})
		if err != nil {
			return fmt.Errorf("listing the jobs of the pool %s: %w", pool, err)
		}
		for _, e := range list.GetExecutions() {
			id := e.GetExecution()
			err := r.client.SignalWorkflow(ctx, id.GetWorkflowId(), id.GetRunId(), comfy.SignalPoolGone, pool)
			var ended *serviceerror.NotFound
			if err != nil && !errors.As(err, &ended) {
				return fmt.Errorf("telling job %s that its pool is gone: %w", id.GetWorkflowId(), err)
			}
			told++
		}
		if page = list.GetNextPageToken(); len(page) == 0 {
			break
		}
	}
	if told > 0 {
		r.log.WithFields(logrus.Fields{"pool": pool, "jobs": told}).Warn("no worker serves this pool any more; its jobs go elsewhere")
	}
	return nil
}
