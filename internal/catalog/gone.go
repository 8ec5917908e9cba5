package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Gone lists the pools that some worker has served within the last day and that none serves now: each record of theirs
// says that its worker has stopped, or has not been renewed.
func (d *Directory) Gone(ctx context.Context) ([]string, error) {
	served, err := d.fresh(ctx)
	if err != nil {
		return nil, err
	}
	gone := map[string]bool{}
	for b, err := range d.blobs.List(ctx, recordPrefix) {
		if err != nil {
			return nil, fmt.Errorf("reading what the workers have published: %w", err)
		}
		pool, _, ok := strings.Cut(strings.TrimPrefix(b.Key, recordPrefix), "/")
		if ok && (b.Modified.IsZero() || time.Since(b.Modified) < forgetAfter) {
			gone[pool] = true
		}
	}
	for _, r := range served {
		delete(gone, r.Pool.Name)
	}
	return slices.Sorted(maps.Keys(gone)), nil
}
