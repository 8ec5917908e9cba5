package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/comfyd/comfyd/comfy"
)

// Gone is a pool that some worker has served within the last day and that none serves now.
type Gone struct {
	Pool string
	// Stopped says that every worker of the pool has taken its leave. Otherwise one has merely fallen silent: it may be
	// dead, or cut off from the store.
	Stopped bool
}

// Gone lists the pools without a worker. Ages are told by the store's clock alone: the newest record is now, and whoever
// asks should be a worker whose own record is renewed.
func (d *Directory) Gone(ctx context.Context) ([]Gone, error) {
	var all []comfy.Blob // first: a worker that starts meanwhile must not be missed among the records
	var now time.Time
	for b, err := range d.blobs.List(ctx, recordPrefix) {
		if err != nil {
			return nil, fmt.Errorf("reading what the workers have published: %w", err)
		}
		all = append(all, b)
		if b.Modified.After(now) {
			now = b.Modified
		}
	}
	served, silent, known := map[string]bool{}, map[string]bool{}, []string{}
	for _, b := range all {
		pool, _, ok := strings.Cut(strings.TrimPrefix(b.Key, recordPrefix), "/")
		age := now.Sub(b.Modified)
		if !ok || age > forgetAfter {
			continue
		}
		known = append(known, pool)
		var r Record
		err := d.decode(ctx, b.Key, &r)
		var unreadable *json.SyntaxError
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.As(err, &unreadable):
		case err != nil:
			return nil, err
		case r.Stopped:
		case age <= staleAfter:
			served[pool] = true
		default:
			silent[pool] = true
		}
	}
	slices.Sort(known)
	var gone []Gone
	for _, pool := range slices.Compact(known) {
		if !served[pool] {
			gone = append(gone, Gone{Pool: pool, Stopped: !silent[pool]})
		}
	}
	return gone, nil
}
