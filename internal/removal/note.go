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
	// patience is what whoever has written a note gets to carry it out before anybody else does.
	patience = 10 * time.Minute
	// maxNote bounds what is read back: a job has 3,000 outputs at most.
	maxNote = 16 << 20
)

// key holds the run as well: a job that has the same ID later gets a note of its own.
func (n *Note) key() string {
	return notes + strings.TrimPrefix(comfy.OutputPrefix(n.ID), comfy.OutputRoot) + n.RunID
}

func (r *Remover) write(ctx context.Context, n *Note) error {
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("noting the removal of job %s: %w", n.ID, err)
	}
	if _, err := r.Store.Put(ctx, n.key(), bytes.NewReader(raw)); err != nil {
		return fmt.Errorf("noting the removal of job %s: %w", n.ID, err)
	}
	return nil
}

// Finish carries out the notes that have lain since before now for longer than their writers need, and says how many.
// One that cannot be carried out does not keep the others.
func (r *Remover) Finish(ctx context.Context, now time.Time) (done int, err error) {
	var failed []error
	for b, err := range r.Store.List(ctx, notes) {
		if err != nil {
			return done, fmt.Errorf("listing removals: %w", errors.Join(append(failed, err)...))
		}
		if now.Sub(b.Modified) < patience {
			continue
		}
		n, err := r.read(ctx, b.Key)
		if err == nil {
			err = r.carryOut(ctx, n)
		}
		switch {
		case err == nil:
			done++
		case !errors.Is(err, fs.ErrNotExist): // its writer was alive after all
			failed = append(failed, err)
		}
	}
	return done, errors.Join(failed...)
}

func (r *Remover) read(ctx context.Context, key string) (_ *Note, err error) {
	body, err := r.Store.Open(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("reading the removal %s: %w", key, err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(body, maxNote))
	if err != nil {
		return nil, fmt.Errorf("reading the removal %s: %w", key, err)
	}
	var n Note
	if err := json.Unmarshal(raw, &n); err != nil {
		return nil, fmt.Errorf("the removal %s cannot be read: %w", key, err)
	}
	if n.ID == "" || n.RunID == "" || n.key() != key { // an empty run ID would mean whichever run there is
		return nil, fmt.Errorf("the removal %s names another job than its own", key)
	}
	return &n, nil
}
