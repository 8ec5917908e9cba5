package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	pools, err := d.lookAtPools(ctx, time.Time{})
	if err != nil {
		return nil, err
	}
	var gone []Gone
	for _, pool := range slices.Sorted(maps.Keys(pools)) {
		if p := pools[pool]; !p.served {
			gone = append(gone, Gone{Pool: pool, Stopped: !p.silent})
		}
	}
	return gone, nil
}

// Served tells of each pool that some worker has served within the last day whether one serves it now. Whoever asks need
// not be a worker, so ages are told by its own clock.
func (d *Directory) Served(ctx context.Context) (map[string]bool, error) {
	pools, err := d.lookAtPools(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	served := map[string]bool{}
	for pool, p := range pools {
		served[pool] = p.served
	}
	return served, nil
}

// seen is what the records of one pool say together.
type seen struct{ served, silent bool }

// lookAtPools reads the records of all pools; now is the newest of them where it is later than the one given.
func (d *Directory) lookAtPools(ctx context.Context, now time.Time) (map[string]seen, error) {
	var all []comfy.Blob // first: a worker that starts meanwhile must not be missed among the records
	for b, err := range d.blobs.List(ctx, recordPrefix) {
		if err != nil {
			return nil, fmt.Errorf("reading what the workers have published: %w", err)
		}
		all = append(all, b)
		if b.Modified.After(now) {
			now = b.Modified
		}
	}
	pools := map[string]seen{}
	for _, b := range all {
		pool, _, ok := strings.Cut(strings.TrimPrefix(b.Key, recordPrefix), "/")
		age := now.Sub(b.Modified)
		if !ok || age > forgetAfter {
			continue
		}
		p := pools[pool]
		var r Record
		err := d.decode(ctx, b.Key, &r)
		var unreadable *json.SyntaxError
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.As(err, &unreadable):
		case err != nil:
			return nil, err
		case r.Stopped:
		case age <= staleAfter:
			p.served = true
		default:
			p.silent = true
		}
		pools[pool] = p
	}
	return pools, nil
}
