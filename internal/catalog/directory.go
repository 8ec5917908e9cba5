package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

const (
	// directoryAge is how long the directory trusts what it has read.
	directoryAge = time.Second
	// refreshEvery bounds how often clients with bad workflows can make the backends list their nodes and models.
	refreshEvery = 2 * time.Second
	// checkTimeout is what a slow store may take of a submission's time before the graph is accepted unchecked.
	checkTimeout = 2 * time.Second
	// forgetAfter is when the record of a worker that was killed is removed.
	forgetAfter = 24 * time.Hour
	// maxRecord and maxCatalog bound what is read from the store.
	maxRecord  = 1 << 20
	maxCatalog = 256 << 20
)

// ErrNoBackend says that no worker has published a server that is well.
var ErrNoBackend = errors.New("no ComfyUI is ready")

// Directory reads what all workers have published: which pools there are, and what their servers can run.
type Directory struct {
	blobs Blobs
	// refresh makes the backends look again and publish; nil where they belong to other processes.
	refresh      func(ctx context.Context) error
	refreshEvery time.Duration

	mu        sync.Mutex
	records   []Record
	read      time.Time
	failed    error // of that read
	refreshed time.Time
	catalogs  map[string]*Catalog // by reference
}

// NewDirectory makes a directory over the store. Refresh may be nil.
func NewDirectory(b Blobs, refresh func(ctx context.Context) error) *Directory {
	return &Directory{blobs: b, refresh: refresh, refreshEvery: refreshEvery, catalogs: map[string]*Catalog{}}
}

// Pools lists the pools with a server that is well, in order of preference.
func (d *Directory) Pools(ctx context.Context) ([]backend.Pool, error) {
	records, _, err := d.load(ctx)
	if err != nil {
		return nil, err
	}
	var pools []backend.Pool
	for _, r := range records {
		if slices.ContainsFunc(r.Servers, func(s ServerRecord) bool { return s.Healthy }) &&
			!slices.ContainsFunc(pools, func(p backend.Pool) bool { return p.Name == r.Pool.Name }) {
			pools = append(pools, r.Pool)
		}
	}
	return pools, nil
}

// Alive returns nil when some server is well, and ErrNoBackend with each server's problem otherwise.
func (d *Directory) Alive(ctx context.Context) error {
	records, _, err := d.load(ctx)
	if err != nil {
		return err
	}
	var problems []string
	for _, r := range records {
		for _, s := range r.Servers {
			if s.Healthy {
				return nil
			}
			problems = append(problems, s.Name+": "+s.Problem)
		}
	}
	if len(problems) == 0 {
		return fmt.Errorf("%w: no worker is running", ErrNoBackend)
	}
	return fmt.Errorf("%w: %s", ErrNoBackend, strings.Join(problems, "; "))
}

// Check refuses a graph that every server which might run it would refuse, after they have been asked anew what they
// have; nil means accepted, as does any doubt. Only the pools that are wanted count.
func (d *Directory) Check(ctx context.Context, g *comfy.Graph, inputs []string, w backend.Want) *comfy.Failure {
	f := d.noPool(ctx, w)
	if f != nil {
		return f
	}
	f, fixable := d.check(ctx, g, inputs, w)
	if f == nil || !fixable {
		return f
	}
	if d.refresh == nil || !d.renew(ctx) {
		return nil // a model may have been added since: the backend itself will tell
	}
	f, _ = d.check(ctx, g, inputs, w)
	return f
}

// check says whether fresher knowledge could change its mind, too.
func (d *Directory) check(ctx context.Context, g *comfy.Graph, inputs []string, w backend.Want) (_ *comfy.Failure, fixable bool) {
	ctx, done := context.WithTimeout(ctx, checkTimeout)
	defer done()
	records, catalogs, err := d.load(ctx)
	if err != nil {
		records = nil // in doubt, accept
	}
	var first *comfy.Failure
	unsure := false
	for _, r := range records {
		if !w.Fits(r.Pool) {
			continue
		}
		for _, s := range r.Servers {
			c := catalogs[s.CatalogRef]
			f := refuse(g, c, inputs)
			if c == nil && f == nil {
				unsure = true
			} else if f == nil {
				return nil, false
			} else if first == nil {
				first = f
			}
		}
	}
	switch {
	case unsure:
		return nil, false
	case first == nil: // nobody has published anything: only what holds for every ComfyUI can be checked
		return refuse(g, nil, inputs), false
	}
	return first, true
}

// noPool refuses a job that wants what no pool is or offers, by what the workers have published until now; nil where one
// does, or nobody has published anything.
func (d *Directory) noPool(ctx context.Context, w backend.Want) *comfy.Failure {
	ctx, done := context.WithTimeout(ctx, checkTimeout)
	defer done()
	for again := range 2 {
		records, _, err := d.load(ctx)
		if err != nil || len(records) == 0 || slices.ContainsFunc(records, func(r Record) bool { return w.Fits(r.Pool) }) {
			return nil
		}
		if again == 1 {
			return instead(records, w)
		}
		d.forget() // a worker may have just started
	}
	return nil
}

// forget has the records read anew.
func (d *Directory) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.read = time.Time{}
}

// instead says what there is instead of what a job wants.
func instead(records []Record, w backend.Want) *comfy.Failure {
	var names, gpus []string
	for _, r := range records {
		names = append(names, r.Pool.Name)
		if w.Names(r.Pool) {
			gpus = append(gpus, r.Pool.GPUs...)
		}
	}
	text := fmt.Sprintf("there is no backend %q; there are: %s", w.Pool, strings.Join(slices.Compact(names), ", "))
	switch {
	case !slices.ContainsFunc(records, func(r Record) bool { return w.Names(r.Pool) }):
	case len(gpus) == 0:
		text = fmt.Sprintf("no backend here lets a job choose its GPU (%q); leave gpu out", w.GPU)
	default:
		slices.Sort(gpus)
		text = fmt.Sprintf("no backend here offers the GPU %q; there are: %s", w.GPU, strings.Join(slices.Compact(gpus), ", "))
	}
	return &comfy.Failure{Code: comfy.InvalidWorkflow, Message: text}
}

// refuse is one server's verdict, with a nil catalogue that of every server.
func refuse(g *comfy.Graph, c *Catalog, inputs []string) *comfy.Failure {
	if bad := PathErrors(g, c, inputs); len(bad) > 0 {
		return &comfy.Failure{Code: comfy.InvalidWorkflow, Message: "The workflow names a file that is not its own. " + bad.Summary(), NodeErrors: bad}
	}
	if c == nil {
		return nil // the graph's links are judged where the output nodes are known: by the backend, before it posts
	}
	if bad := c.Check(g, inputs); len(bad) > 0 {
		return &comfy.Failure{Code: comfy.InvalidWorkflow, Message: "ComfyUI cannot run this workflow. " + bad.Summary(), NodeErrors: bad}
	}
	return nil
}

// renew asks the backends anew, unless somebody has just done so.
func (d *Directory) renew(ctx context.Context) bool {
	d.mu.Lock()
	due := time.Since(d.refreshed) > d.refreshEvery
	if due {
		d.refreshed = time.Now()
	}
	d.mu.Unlock()
	if due {
		ctx, done := context.WithTimeout(ctx, 5*time.Second)
		defer done()
		if d.refresh(ctx) != nil {
			return false
		}
		d.forget()
	}
	return true
}

// load reads the records that are not stale, and the catalogues that they name.
func (d *Directory) load(ctx context.Context) ([]Record, map[string]*Catalog, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.read) < directoryAge {
		return d.records, d.catalogs, d.failed
	}
	records, err := d.fresh(ctx)
	catalogs := map[string]*Catalog{}
	if err == nil {
		catalogs, err = d.parse(ctx, records)
	}
	d.records, d.catalogs, d.failed, d.read = records, catalogs, err, time.Now()
	return records, catalogs, err
}

// fresh reads the records that are renewed. Their age is the store's word, so that no two clocks are compared but its
// own and ours.
func (d *Directory) fresh(ctx context.Context) ([]Record, error) {
	var records []Record
	for b, err := range d.blobs.List(ctx, recordPrefix) {
		if err != nil {
			return nil, fmt.Errorf("reading what the workers have published: %w", err)
		}
		if age := time.Since(b.Modified); !b.Modified.IsZero() && age > staleAfter {
			if age > forgetAfter {
				_ = d.blobs.Delete(ctx, b.Key) // another reader will, otherwise
			}
			continue
		}
		var r Record
		err := d.decode(ctx, b.Key, &r)
		var unreadable *json.SyntaxError
		if errors.Is(err, fs.ErrNotExist) || errors.As(err, &unreadable) {
			continue // its worker has just stopped; or it is none of ours
		}
		if err != nil {
			return nil, err
		}
		if !r.Stopped && !r.Leaving {
			records = append(records, r)
		}
	}
	slices.SortStableFunc(records, func(a, b Record) int { return a.Order - b.Order })
	return records, nil
}

// parse keeps the catalogues that are named still and reads the new ones.
func (d *Directory) parse(ctx context.Context, records []Record) (map[string]*Catalog, error) {
	catalogs := map[string]*Catalog{}
	for _, r := range records {
		for _, s := range r.Servers {
			if s.CatalogRef == "" || catalogs[s.CatalogRef] != nil {
				continue
			}
			if c := d.catalogs[s.CatalogRef]; c != nil {
				catalogs[s.CatalogRef] = c
				continue
			}
			raw, err := d.bytes(ctx, s.CatalogRef, maxCatalog)
			if err != nil {
				return nil, err
			}
			c, err := Parse(raw)
			if err != nil {
				return nil, fmt.Errorf("the catalogue of %s: %w", s.Name, err)
			}
			catalogs[s.CatalogRef] = c
		}
	}
	return catalogs, nil
}

func (d *Directory) decode(ctx context.Context, key string, v any) error {
	raw, err := d.bytes(ctx, key, maxRecord)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s in the store is not a worker's record: %w", key, err)
	}
	return nil
}

func (d *Directory) bytes(ctx context.Context, key string, limit int64) ([]byte, error) {
	r, err := d.blobs.Open(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, limit))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	return raw, nil
}
