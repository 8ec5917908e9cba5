// Package removal makes Temporal and the store forget a job. A note in the store, written first, says what has to go,
// so that whoever finds it can finish what a crash has interrupted.
//
// Temporal's record goes before the bytes, so that no job is ever seen COMPLETED with bytes missing. From then on its ID
// is free, and a new job may have it and make the same outputs under the same keys. Therefore an object goes only as it
// was when the note was written: one that has been stored anew since has another time, and stays.
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

	"github.com/cenkalti/backoff/v5"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

// Temporal is what a removal needs of Temporal; client.Client satisfies it.
type Temporal interface {
	DescribeWorkflowExecution(ctx context.Context, workflowID, runID string) (*workflowservice.DescribeWorkflowExecutionResponse, error)
	CountWorkflow(ctx context.Context, request *workflowservice.CountWorkflowExecutionsRequest) (*workflowservice.CountWorkflowExecutionsResponse, error)
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

// forgetTimeout is how long Temporal is given to forget a job that it was told to.
const forgetTimeout = 10 * time.Second

// Remover removes jobs.
type Remover struct {
	Temporal  Temporal
	Namespace string
	Store     Store
}

// Job is one that has ended.
type Job struct {
	ID, RunID string
	Tenant    string
	Started   time.Time
	// Inputs are the keys of its input files and of its graph in the store. What lies elsewhere than with the tenant's
	// own is left alone.
	Inputs []string
}

// Note says what of a job has to go. It lies in the store until all has gone.
type Note struct {
	ID      string       `json:"id"`
	RunID   string       `json:"run_id"`
	Tenant  string       `json:"tenant"`
	Started time.Time    `json:"started"`
	Outputs []comfy.Blob `json:"outputs,omitempty"`
	Inputs  []string     `json:"inputs,omitempty"`
}

// ErrFilesLeft says that the job is forgotten, and that some of its files are not gone yet: a sweep removes them.
var ErrFilesLeft = errors.New("the job is forgotten, but some of its files are still in the store")

// ErrStillKnown says that Temporal has taken the order to forget the job, and has not carried it out yet.
var ErrStillKnown = errors.New("Temporal still knows the job")

// Remove forgets a job that has ended and everything that nobody else uses. After an error, the same call again goes on,
// or else [Remover.Finish] does; ErrFilesLeft is among its errors.
func (r *Remover) Remove(ctx context.Context, j Job) error {
	note := &Note{ID: j.ID, RunID: j.RunID, Tenant: j.Tenant, Started: j.Started}
	for b, err := range r.Store.List(ctx, comfy.OutputPrefix(j.ID)) {
		if err != nil {
			return fmt.Errorf("listing the outputs of job %s: %w", j.ID, err)
		}
		note.Outputs = append(note.Outputs, b)
	}
	for _, key := range j.Inputs {
		if strings.HasPrefix(key, comfy.InputPrefix(j.Tenant)) || strings.HasPrefix(key, comfy.GraphPrefix(j.Tenant)) {
			note.Inputs = append(note.Inputs, key)
		}
	}
	if err := r.write(ctx, note); err != nil {
		return err
	}
	return r.carryOut(ctx, note)
}

// carryOut does what a note says, as often as it is called.
func (r *Remover) carryOut(ctx context.Context, n *Note) error {
	if err := r.forget(ctx, n); err != nil {
		return err
	}
	for _, b := range n.Outputs {
		if err := r.removeUnchanged(ctx, b); err != nil {
			return errors.Join(ErrFilesLeft, err)
		}
	}
	for _, key := range n.Inputs {
		if err := r.removeInput(ctx, key, n); err != nil {
			return errors.Join(ErrFilesLeft, err)
		}
	}
	if err := r.Store.Delete(ctx, n.key()); err != nil {
		return errors.Join(ErrFilesLeft, err)
	}
	return nil
}

// forget makes Temporal forget the run, and returns when it has.
func (r *Remover) forget(ctx context.Context, n *Note) error {
	_, err := r.Temporal.WorkflowService().DeleteWorkflowExecution(ctx, &workflowservice.DeleteWorkflowExecutionRequest{
		Namespace: r.Namespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: n.ID, RunId: n.RunID},
	})
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting job %s from Temporal: %w", n.ID, err)
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 5*time.Millisecond, 500*time.Millisecond
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		_, err := r.Temporal.DescribeWorkflowExecution(ctx, n.ID, n.RunID)
		switch {
		case gone(err):
			return struct{}{}, nil
		case err == nil:
			err = ErrStillKnown
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(forgetTimeout))
	if err != nil {
		return fmt.Errorf("waiting for Temporal to forget job %s: %w", n.ID, err)
	}
	return nil
}

// removeUnchanged removes an object that is as it was. Between the look and the removal is one call to the store, in
// which a new job may store the same bytes under the same key; nothing less than a store with conditions would close
// that.
func (r *Remover) removeUnchanged(ctx context.Context, b comfy.Blob) error {
	_, err := RemoveUnchanged(ctx, r.Store, b)
	return err
}

// RemoveUnchanged removes an object if it has not been stored anew since it was listed as b, and says whether it did.
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

// removeInput removes an input or a graph unless another job uses it, or somebody has put or named it since this job
// began: that may be a submission which Temporal does not know yet.
func (r *Remover) removeInput(ctx context.Context, key string, n *Note) error {
	used, err := r.used(ctx, key, n)
	if err != nil || used {
		return err
	}
	b, err := r.Store.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || b.Modified.After(n.Started) {
		return err
	}
	return r.Store.Delete(ctx, key)
}

// used tells whether a job other than the note's may use an input or a graph.
func (r *Remover) used(ctx context.Context, key string, n *Note) (bool, error) {
	return r.any(ctx, visibility.Uses(key, n.Tenant, n.RunID))
}

// Named tells whether any job that Temporal knows, open or ended, names an input or a graph of a tenant.
func (r *Remover) Named(ctx context.Context, key, tenant string) (bool, error) {
	return r.any(ctx, visibility.Names(key, tenant))
}

func (r *Remover) any(ctx context.Context, query string) (bool, error) {
	count, err := r.Temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: r.Namespace, Query: query})
	if err != nil {
		return true, fmt.Errorf("asking Temporal which jobs use an object of the store: %w", err)
	}
	return count.GetCount() > 0, nil
}

// gone tells a run that Temporal does not know from every other failure, such as a namespace that it does not know.
func gone(err error) bool {
	var missing *serviceerror.NotFound
	return errors.As(err, &missing)
}
