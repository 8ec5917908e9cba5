// Package removal makes the store and Temporal forget a job. A note in the store comes first: from then on the job counts
// as deleted, for every reader, and whoever finds the note can finish what a crash has interrupted. Then go the bytes,
// then Temporal's record, which takes its time: it is gone up to a minute after the order. The job's ID stays taken until
// then, so that no new job stores the same outputs under the same keys meanwhile. The note goes last.
package removal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

// Temporal is what a removal needs of Temporal; client.Client satisfies it.
type Temporal interface {
	DescribeWorkflowExecution(ctx context.Context, workflowID, runID string) (*workflowservice.DescribeWorkflowExecutionResponse, error)
	ListWorkflow(ctx context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error)
	WorkflowService() workflowservice.WorkflowServiceClient
}

// Store is what a removal needs of the blob store.
type Store interface {
	Put(ctx context.Context, key string, r io.Reader) (comfy.Blob, error)
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	Stat(ctx context.Context, key string) (comfy.Blob, error)
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, prefix string) iter.Seq2[comfy.Blob, error]
}

// CallTimeout bounds a call of Temporal's service that the SDK gives no deadline of its own.
const CallTimeout = 10 * time.Second

// usersAtOnce is how many jobs that name an object are looked at.
const usersAtOnce = 20

// Remover removes jobs.
type Remover struct {
	Temporal  Temporal
	Namespace string
	// NamespaceID is of that namespace. Notes of another one are left to it; empty, which only tests are, means all.
	NamespaceID string
	Store       Store
}

// Job is one that has ended; its JSON is the note.
type Job struct {
	ID     string `json:"id"`
	RunID  string `json:"run_id"`
	Tenant string `json:"tenant"`
	// Namespace is the ID of the Temporal namespace that knows the job; Remove sets it. Empty in notes of an older comfyd.
	Namespace string    `json:"namespace,omitempty"`
	Started   time.Time `json:"started"`
	// Inputs are the keys of its input files and of its graph in the store. What lies elsewhere than with the tenant's
	// own is left alone.
	Inputs []string `json:"inputs,omitempty"`
	// Webhook says that somebody was told of its end, or is being told still: the log of it goes, too.
	Webhook bool `json:"webhook,omitempty"`
}

// ErrUnfinished says that the job is deleted for every reader, and that something of it is still in the store or in
// Temporal: a sweep removes it.
var ErrUnfinished = errors.New("the job is deleted, but not everything of it is gone yet")

// Remove deletes a job that has ended, with everything that nobody else uses. It may be called again. Only an error that
// is no ErrUnfinished means that nothing was done.
func (r *Remover) Remove(ctx context.Context, j Job) error {
	j.Namespace = r.NamespaceID
	if err := r.write(ctx, &j); err != nil {
		return err
	}
	if err := r.carryOut(ctx, &j); err != nil {
		return errors.Join(ErrUnfinished, err)
	}
	return nil
}

// Deleted tells whether a run has been deleted, also while Temporal still knows it.
func (r *Remover) Deleted(ctx context.Context, id, runID string) (bool, error) {
	_, err := r.Store.Stat(ctx, (&Job{ID: id, RunID: runID}).key())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// carryOut removes what there is, as often as it is called.
func (r *Remover) carryOut(ctx context.Context, j *Job) error {
	if err := r.removeOutputs(ctx, j); err != nil {
		return err
	}
	if err := r.removeInputs(ctx, j); err != nil {
		return err
	}
	if err := r.removeWebhook(ctx, j); err != nil {
		return err
	}
	return r.deleteRun(ctx, j.ID, j.RunID)
}

// deleteRun has Temporal forget a run; one that is open is terminated. Without a runID it is the latest.
func (r *Remover) deleteRun(ctx context.Context, id, runID string) error {
	ctx, done := context.WithTimeout(ctx, CallTimeout)
	defer done()
	_, err := r.Temporal.WorkflowService().DeleteWorkflowExecution(ctx, &workflowservice.DeleteWorkflowExecutionRequest{
		Namespace: r.Namespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: id, RunId: runID},
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("deleting %s from Temporal: %w", id, err)
	}
	return nil
}

// removeWebhook removes all runs of the workflow that tells of the job's end; each replay is one. The latest is deleted by its
// ID, because the list may be behind. Where the ID has got another run meanwhile, they may be that one's.
func (r *Remover) removeWebhook(ctx context.Context, j *Job) error {
	if !j.Webhook {
		return nil
	}
	if run, err := r.run(ctx, j.ID, ""); err != nil || run != "" && run != j.RunID {
		return err
	}
	id := comfy.WebhookWorkflowID(j.ID)
	for e, err := range visibility.Executions(ctx, r.Temporal, "WorkflowId = "+visibility.Quote(id)) {
		if err != nil {
			return fmt.Errorf("listing the runs of %s: %w", id, err)
		}
		if err := r.deleteRun(ctx, id, e.GetRunId()); err != nil {
			return err
		}
	}
	return r.deleteRun(ctx, id, "")
}

// removeOutputs stops where the ID has got another run meanwhile: a new job of the same Idempotency-Key keeps its outputs
// under the same keys. So it asks before each of them.
func (r *Remover) removeOutputs(ctx context.Context, j *Job) error {
	for b, err := range r.Store.List(ctx, comfy.OutputPrefix(j.ID)) {
		if err != nil {
			return fmt.Errorf("listing the outputs of job %s: %w", j.ID, err)
		}
		if run, err := r.run(ctx, j.ID, ""); err != nil || run != "" && run != j.RunID {
			return err
		}
		if _, err := RemoveUnchanged(ctx, r.Store, b); err != nil {
			return err
		}
	}
	return nil
}

// RemoveUnchanged removes an object if it has not been stored anew since it was listed as b, and says whether it did.
// Between the look and the removal is one call to the store; only a store with conditions could do without.
func RemoveUnchanged(ctx context.Context, s Store, b comfy.Blob) (bool, error) {
	now, err := s.Stat(ctx, b.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || !sameTime(now.Modified, b.Modified) {
		return false, err
	}
	return true, s.Delete(ctx, b.Key)
}

// sameTime compares two times of one object: some object stores know milliseconds in lists, and whole seconds elsewhere.
func sameTime(a, b time.Time) bool {
	if a.Nanosecond() == 0 || b.Nanosecond() == 0 {
		a, b = a.Truncate(time.Second), b.Truncate(time.Second)
	}
	return a.Equal(b)
}

// removeInputs removes the inputs and the graph, each unless another job uses it, or somebody has put or named it since
// this job began: that may be a submission which Temporal does not know yet.
func (r *Remover) removeInputs(ctx context.Context, j *Job) error {
	for _, key := range j.Inputs {
		if !strings.HasPrefix(key, comfy.InputPrefix(j.Tenant)) && !strings.HasPrefix(key, comfy.GraphPrefix(j.Tenant)) {
			continue
		}
		used, err := r.any(ctx, visibility.Uses(key, j.Tenant, j.RunID))
		if err != nil {
			return err
		}
		if used {
			continue
		}
		b, err := r.Store.Stat(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if b.Modified.After(j.Started) {
			continue
		}
		if err := r.Store.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// Used tells whether any job that Temporal knows, open or ended, may use an input or a graph of a tenant. An open one that
// does not say what it uses, such as a child that others have started, may use all.
func (r *Remover) Used(ctx context.Context, key, tenant string) (bool, error) {
	return r.any(ctx, visibility.Uses(key, tenant, ""))
}

// any tells whether Temporal lists a job that has not been deleted. Where it lists many that have been, the answer is
// yes: the next sweep asks again.
func (r *Remover) any(ctx context.Context, query string) (bool, error) {
	found, err := r.Temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		Namespace: r.Namespace, PageSize: usersAtOnce, Query: query,
	})
	if err != nil {
		return true, fmt.Errorf("asking Temporal which jobs use an object of the store: %w", err)
	}
	for _, info := range found.GetExecutions() {
		deleted, err := r.Deleted(ctx, info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId())
		if err != nil || !deleted {
			return true, err
		}
	}
	return len(found.GetNextPageToken()) > 0 && len(found.GetExecutions()) == usersAtOnce, nil
}

// run is the run of an ID that Temporal knows, with an empty runID the latest one; empty where it knows none.
func (r *Remover) run(ctx context.Context, id, runID string) (string, error) {
	d, err := r.Temporal.DescribeWorkflowExecution(ctx, id, runID)
	if err != nil && !gone(err) {
		return "", fmt.Errorf("asking Temporal about job %s: %w", id, err)
	}
	return d.GetWorkflowExecutionInfo().GetExecution().GetRunId(), nil
}

// gone tells a run that Temporal does not know from every other failure, such as a namespace that it does not know.
func gone(err error) bool {
	var missing *serviceerror.NotFound
	return errors.As(err, &missing)
}
