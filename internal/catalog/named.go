package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// Named returns the keys of the catalogues that any worker's record names, stale or not: a worker that was paused goes
// on with what its record says.
func Named(ctx context.Context, b Blobs) (map[string]bool, error) {
	d := NewDirectory(b, nil)
	named := map[string]bool{}
	for blob, err := range b.List(ctx, recordPrefix) {
		if err != nil {
			return nil, fmt.Errorf("reading what the workers have published: %w", err)
		}
		var r Record
		err := d.decode(ctx, blob.Key, &r)
		var unreadable *json.SyntaxError
		if errors.Is(err, fs.ErrNotExist) || errors.As(err, &unreadable) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, s := range r.Servers {
			named[s.CatalogRef] = true
		}
	}
	return named, nil
}
