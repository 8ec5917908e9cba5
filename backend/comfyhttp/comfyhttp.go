// Package comfyhttp is the Backend over any ComfyUI server, spoken to by HTTP and WebSocket.
//
// ComfyUI's history decides how a prompt ended; the WebSocket only makes that known sooner, and carries progress and
// the few outputs that exist nowhere else. What ComfyUI does and does not do was found by running 0.3.64 and 0.3.75.
package comfyhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
)

// Options say which servers a Backend uses, and how.
type Options struct {
	// Pool is who the backend is. Slots 0 means two for each server.
	Pool backend.Pool
	// URLs of the servers: http or https, a path in front is allowed, and so are credentials
	// (http://user:password@host), which are sent and never shown.
	URLs []string
	// Remover deletes files on a server whose folders are ours. Without one Release empties them over HTTP, because
	// ComfyUI has no call that deletes a file.
	Remover func(ctx context.Context, server string, files []RemotePath) error
	// OnStall is told that a server has been put aside because a prompt on it showed no sign of life. It must return
	// at once; nil for nobody.
	OnStall func(server string, why error)
	// Previews asks for a picture of what samplers have so far. ComfyUIs that do not know how to be asked have them where
	// they were started with --preview-method.
	Previews bool
	// ProbeInterval is how often each server is asked whether it lives; 0 means 2 s.
	ProbeInterval time.Duration
	// Log is where the backend writes; nil for nowhere.
	Log logrus.FieldLogger
}

// RemotePath is a file on a ComfyUI server.
type RemotePath struct {
	Folder    string // "input", "output" or "temp"
	Subfolder string // with slashes
	Filename  string
}

// Backend runs prompts on ComfyUI servers. It implements [backend.Backend].
type Backend struct {
	o       Options
	pool    backend.Pool
	t       timing
	log     logrus.FieldLogger
	servers []*server
	http    *http.Transport

	mu   sync.Mutex // guards next and each server's inFlight
	next int

	stop context.CancelFunc
	done sync.WaitGroup
}

var _ backend.Backend = (*Backend)(nil)

// New makes a Backend and starts to watch its servers; none of them needs to be up. It fails on a URL that cannot be
// one of a ComfyUI.
func New(o Options) (*Backend, error) { return newBackend(o, defaultTiming(), newTransport()) }

func newBackend(o Options, t timing, transport *http.Transport) (*Backend, error) {
	if len(o.URLs) == 0 {
		return nil, errors.New("comfyhttp: no ComfyUI server is named")
	}
	if o.ProbeInterval > 0 {
		t.probe = o.ProbeInterval
	}
	if o.Log == nil {
		o.Log = nobody()
	}
	if o.Pool.Slots == 0 {
		o.Pool.Slots = 2 * len(o.URLs)
	}
	b := &Backend{o: o, pool: o.Pool, t: t, log: o.Log, http: transport}
	for _, u := range o.URLs {
		s, err := newServer(u, traced(b.http), b.log, t)
		if err != nil {
			return nil, err
		}
		if b.find(s.name) != nil {
			return nil, fmt.Errorf("comfyhttp: the server %s is named twice", s.name)
		}
		b.servers = append(b.servers, s)
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	for _, s := range b.servers {
		b.done.Go(func() { s.watch(ctx) })
	}
	return b, nil
}

// Pool says who this is.
func (b *Backend) Pool() backend.Pool { return b.pool }

// Servers reports what is known about each server, without asking it.
func (b *Backend) Servers() []backend.Server {
	out := make([]backend.Server, len(b.servers))
	for i, s := range b.servers {
		out[i] = s.report()
	}
	return out
}

// Probe asks every server now. It fails with BackendUnavailable when none of them is well.
func (b *Backend) Probe(ctx context.Context) error {
	b.each(func(s *server) error { s.probe(ctx); return nil })
	for _, s := range b.servers {
		if s.report().Healthy {
			return nil
		}
	}
	return b.unavailable()
}

// Refresh asks every server that answers for its catalogue anew. It fails when none gave one.
func (b *Backend) Refresh(ctx context.Context) error {
	now := time.Now()
	errs := b.each(func(s *server) error { return s.refresh(ctx, now) })
	if len(errs) < len(b.servers) {
		return nil
	}
	return &backend.Error{Code: comfy.BackendUnavailable,
		Message: "no ComfyUI server tells which nodes it has; see that one runs and can be reached", Cause: errors.Join(errs...)}
}

// Ready consults what the watchers know. Only before it says that no server will ever run the prompt it asks them for
// their catalogues once more, because nodes and models may have been added.
func (b *Backend) Ready(ctx context.Context, p *backend.Prompt) error {
	_, err := b.fitting(ctx, p)
	return err
}

// Close stops watching the servers. Prompts run on.
func (b *Backend) Close() error {
	b.stop()
	b.done.Wait()
	b.http.CloseIdleConnections()
	return nil
}

// each calls f for every server at once and returns the errors.
func (b *Backend) each(f func(*server) error) []error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for _, s := range b.servers {
		wg.Go(func() {
			if err := f(s); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errs
}

func (b *Backend) find(name string) *server {
	for _, s := range b.servers {
		if s.name == name {
			return s
		}
	}
	return nil
}

// fitting returns the servers that are well and have what the prompt needs, at least one.
func (b *Backend) fitting(ctx context.Context, p *backend.Prompt) ([]*server, error) {
	fit, refused := b.check(p)
	if len(fit) == 0 && refused != nil {
		since := time.Now().Add(-b.t.catalogFresh)
		b.each(func(s *server) error { return s.refresh(ctx, since) })
		if ctx.Err() != nil { // what is known is no newer than before
			return nil, backend.Detached(ctx)
		}
		fit, refused = b.check(p)
	}
	switch {
	case len(fit) > 0:
		return fit, nil
	case refused != nil:
		return nil, &backend.Error{Code: comfy.InvalidWorkflow, Message: refused.Summary(), NodeErrors: refused}
	default:
		return nil, b.unavailable()
	}
}

func (b *Backend) check(p *backend.Prompt) (fit []*server, refused comfy.NodeErrors) {
	names := make([]string, len(p.Inputs))
	for i, in := range p.Inputs {
		names[i] = in.Name
	}
	for _, s := range b.servers {
		cat := s.ready()
		if cat == nil {
			continue
		}
		errs := cat.Check(p.Graph, names)
		if len(errs) == 0 { // a job that came while nobody knew the classes has had a weaker look
			errs = catalog.PathErrors(p.Graph, cat, names)
		}
		if len(errs) > 0 {
			refused = errs
			continue
		}
		fit = append(fit, s)
	}
	return fit, refused
}

func (b *Backend) unavailable() error {
	var why []string
	for _, s := range b.servers {
		r := s.report()
		problem := r.Problem
		if r.Healthy { // it came back between two looks
			problem = "just became ready"
		}
		why = append(why, r.Name+": "+problem)
	}
	return backend.Errorf(comfy.BackendUnavailable, "no ComfyUI is ready (%s)", strings.Join(why, "; "))
}

// choose picks the server with the fewest of our own prompts, taking turns among equals, and counts one more on it.
// The caller says how the prompt has ended.
func (b *Backend) choose(ctx context.Context, p *backend.Prompt) (_ *server, ended func(error), _ error) {
	fit, err := b.fitting(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	order := make([]*server, len(fit))
	for i := range fit {
		order[i] = fit[(b.next+i)%len(fit)]
	}
	slices.SortStableFunc(order, func(x, y *server) int { return x.inFlight - y.inFlight })
	for _, s := range order {
		if ended, err = s.breaker.Allow(); err == nil {
			b.next++
			s.inFlight++
			return s, ended, nil
		}
	}
	// Another prompt was faster to try the last of them again.
	return nil, nil, backend.Errorf(comfy.BackendUnavailable, "%s: %v", order[len(order)-1].name, err)
}

// firstLook waits until one server is up, or each has been asked once: a worker that has just started gets prompts before
// it knows anything, and must not take them for ones that nobody can run.
func (b *Backend) firstLook(ctx context.Context) {
	for _, s := range b.servers {
		if s.ready() != nil {
			return
		}
	}
	for _, s := range b.servers {
		select {
		case <-s.asked.Done():
		case <-ctx.Done():
		}
		if s.ready() != nil {
			return
		}
	}
}

func (b *Backend) enter(s *server) { b.mu.Lock(); s.inFlight++; b.mu.Unlock() }
func (b *Backend) leave(s *server) { b.mu.Lock(); s.inFlight--; b.mu.Unlock() }
