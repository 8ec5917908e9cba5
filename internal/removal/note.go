package removal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/comfyd/comfyd/comfy"
)

const (
	// notes is where the notes lie.
	notes = "removals/"
	// patience is how long a note lies before a sweep looks at it: its writer is at work, Temporal takes a minute to
	// forget, and a worker that has not noticed the job's end may store one more output.
	patience = 10 * time.Minute
	// maxNote bounds what is read back.
	maxNote = 1 << 20
)

// key holds the run as well: a later job of the same ID is another one.
func (j *Job) key() string {
	return notes + strings.TrimPrefix(comfy.OutputPrefix(j.ID), comfy.OutputRoot) + j.RunID
}

func (r *Remover) write(ctx context.Context, j *Job) error {
	raw, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("noting the removal of job %s: %w", j.ID, err)
	}
	if _, err := r.Store.Put(ctx, j.key(), bytes.NewReader(raw)); err != nil {
		return fmt.Errorf("noting the removal of job %s: %w", j.ID, err)
	}
	return nil
}

// Finish looks after the notes that have lain for long at the time now, and says how many it has closed. One that cannot
// be carried out does not keep the others.
func (r *Remover) Finish(ctx context.Context, now time.Time) (closed int, err error) {
	var failed []error
	for b, err := range r.Store.List(ctx, notes) {
		if err != nil {
			return closed, errors.Join(append(failed, fmt.Errorf("listing removals: %w", err))...)
		}
		if now.Sub(b.Modified) < patience {
			continue
		}
		done, err := r.finish(ctx, b.Key)
		if done {
			closed++
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // another sweep was faster
			failed = append(failed, err)
		}
	}
	return closed, errors.Join(failed...)
}

// finish goes on with one removal, and closes it when Temporal has forgotten the run. From then on the ID is free: where
// a new job has it, the outputs that are there are that one's.
func (r *Remover) finish(ctx context.Context, key string) (bool, error) {
	j, err := r.read(ctx, key)
	if err != nil {
		return false, err
	}
	if j.Namespace != r.NamespaceID && j.Namespace != "" && r.NamespaceID != "" {
		return false, nil // here its job is unknown, there it may be known
	}
	if run, err := r.run(ctx, j.ID, j.RunID); err != nil {
		return false, err
	} else if run != "" {
		return false, r.carryOut(ctx, j)
	}
	if err := r.removeOutputs(ctx, j); err != nil {
		return false, err
	}
	if err := r.removeInputs(ctx, j); err != nil {
		return false, err
	}
	return true, r.Store.Delete(ctx, key)
}

func (r *Remover) read(ctx context.Context, key string) (_ *Job, err error) {
	body, err := r.Store.Open(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("reading the removal %s: %w", key, err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(body, maxNote))
	if err != nil {
		return nil, fmt.Errorf("reading the removal %s: %w", key, err)
	}
	var j Job
	if err := json.Unmarshal(raw, &j); err != nil {
		return nil, fmt.Errorf("the removal %s cannot be read: %w", key, err)
	}
	if j.ID == "" || j.RunID == "" || j.key() != key { // an empty run ID would mean whichever run there is
		return nil, fmt.Errorf("the removal %s names another job than its own", key)
	}
	return &j, nil
}
