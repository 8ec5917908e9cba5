// Package modal is the Backend over Modal (modal.com): it calls the app in this folder's modal_comfy_api.py through
// Modal's Go SDK. A prompt is one function call; its ID is all that a worker needs to go on with it, and the files that
// it made lie in the call's result until that is released.
//
// What Modal does is known from its SDKs (Go v0.11.1, Python 1.6.4), their protobuf file and its public documentation;
// comments name the source. The SDK hides how a call ended (status, traceback, expired results), so results are asked
// for by the published protobuf stubs over the SDK's own connection.
package modal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// DefaultApp is the app that is called where no other is named; DefaultSlots is how many prompts may then be handed over
// at once. Modal queues what its containers cannot take yet.
const (
	DefaultApp   = "comfyd"
	DefaultSlots = 16
)

// Options say which app at Modal a Backend calls. Tokens and the server's address are Modal's own configuration, which
// the SDK reads: MODAL_TOKEN_ID, MODAL_TOKEN_SECRET, MODAL_SERVER_URL, MODAL_PROFILE, ~/.modal.toml.
type Options struct {
	// App is the deployed app's name (MODAL_APP); empty is [DefaultApp].
	App string
	// Environment is Modal's environment; empty is what Modal's own configuration says (MODAL_ENVIRONMENT).
	Environment string
	// Pool is the pool's name; empty is "modal".
	Pool string
	// GPUs are the kinds that a job may ask for, by Modal's names ("L40S", "A100-80GB"). The one that the app was
	// deployed with need not be among them to be used by jobs that ask for none.
	GPUs []string
	// Slots is how many prompts may be handed over at once; 0 is [DefaultSlots].
	Slots int
	// Previews tells of pictures of what samplers have so far, one a second.
	Previews bool
	// HTTP fetches results from Modal's blob store; nil for a client of our own. It must have no overall timeout.
	HTTP *http.Client
	// Log is where the backend writes; nil for nowhere.
	Log logrus.FieldLogger
	// SDKLog is where Modal's SDK writes; nil for nowhere.
	SDKLog *slog.Logger
}

// Backend runs prompts at Modal. It implements [backend.Backend].
type Backend struct {
	o      Options
	t      timing
	pool   backend.Pool
	name   string // of the one Server that it reports
	log    logrus.FieldLogger
	client *client // for what is answered at once
	lines  *lines  // for what is not
	http   *http.Client
	own    *http.Transport // of http, where it is ours

	// uploads bounds the bytes of inputs that are in memory at once.
	uploads *semaphore.Weighted
	stopped *lru.Cache[string, struct{}] // the calls that this process has cancelled
	indexes *lru.Cache[string, *index]

	mu         sync.Mutex // guards what follows
	dep        *deployment
	problem    string // why the app is not well; empty when it is
	lastSeen   time.Time
	cat        *catalogue
	device     string // what a container has said of itself
	refreshing *refresh
	checked    time.Time // when the catalogue was last found to be up to date
	askAgain   time.Time // when the watcher asks for it again, after it was refused
	retry      *backoff.ExponentialBackOff
	queue      *channel

	hurry  chan struct{} // wakes the watcher
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

var _ backend.Backend = (*Backend)(nil)

// New makes a Backend and starts to watch its app, which need not be there yet: it needs no network. It fails where
// Modal's own configuration holds no usable token.
func New(o Options) (*Backend, error) { return newBackend(o, defaultTiming()) }

func newBackend(o Options, t timing) (*Backend, error) {
	if o.App == "" {
		o.App = DefaultApp
	}
	if o.Pool == "" {
		o.Pool = "modal"
	}
	if o.Slots == 0 {
		o.Slots = DefaultSlots
	}
	if o.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		o.Log = l
	}
	if o.SDKLog == nil {
		o.SDKLog = slog.New(slog.DiscardHandler)
	}
	c, err := newClient(o, t)
	if err != nil {
		return nil, err
	}
	b := &Backend{
		o: o, t: t, client: c, lines: &lines{most: t.polls, open: func() (*client, error) { return newClient(o, t) }}, name: "modal/" + o.App, log: o.Log.WithField("app", o.App), http: o.HTTP,
		pool:    backend.Pool{Name: o.Pool, Kind: "modal", Slots: o.Slots, Idempotent: true, Metered: true, GPUs: slices.Clone(o.GPUs)},
		problem: "Modal has not answered yet", hurry: make(chan struct{}, 1),
		uploads: semaphore.NewWeighted(maxUploads), stopped: recent[struct{}](1024), indexes: recent[*index](256),
		retry: newPause(t.catalogAgain, t.catalogMost),
	}
	if b.http == nil {
		b.own = http.DefaultTransport.(*http.Transport).Clone()
		b.own.ResponseHeaderTimeout = t.call
		b.http = &http.Client{Transport: b.own}
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.queue = newChannel(b)
	b.done.Go(b.watch)
	return b, nil
}

// Pool says who this is.
func (b *Backend) Pool() backend.Pool { return b.pool }

// Servers reports the app as one server, without asking Modal.
func (b *Backend) Servers() []backend.Server {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := backend.Server{Name: b.name, Healthy: b.problem == "", Problem: b.problem, Device: b.device, LastSeen: b.lastSeen}
	if b.cat != nil {
		s.Version, s.Catalog, s.CatalogAt = b.cat.Version, b.cat.ObjectInfo, b.cat.at
		if s.Device == "" {
			s.Device = b.cat.Settings.GPU
		}
	}
	return []backend.Server{s}
}

// Close stops watching. Calls at Modal run on.
func (b *Backend) Close() error {
	b.mu.Lock()
	b.cancel()
	b.mu.Unlock()
	b.done.Wait()
	b.lines.close()
	b.client.sdk.Close()
	if b.own != nil {
		b.own.CloseIdleConnections()
	}
	return nil
}

// background runs f until it ends or, at the latest, the backend is closed. It returns false where that has happened.
func (b *Backend) background(f func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil {
		return false
	}
	b.done.Go(f)
	return true
}

// unavailable is the error of something that may work later.
func unavailable(cause error, format string, args ...any) *backend.Error {
	return &backend.Error{Code: comfy.BackendUnavailable, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// typed makes a backend.Error of any error; one that it is already stays.
func (b *Backend) typed(ctx context.Context, err error) error {
	var be *backend.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !errors.As(err, &be):
		return backend.Detached(ctx)
	case errors.As(err, &be):
		return err
	}
	return unavailable(err, "%s", b.explain(err))
}

// wake makes the watcher look at once.
func (b *Backend) wake() {
	select {
	case b.hurry <- struct{}{}:
	default:
	}
}

// firstLine is what of a text goes into a sentence.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if r := []rune(line); len(r) > 300 {
		line = string(r[:300]) + "…"
	}
	return line
}

// recent keeps the newest few values by name.
func recent[T any](most int) *lru.Cache[string, T] {
	c, err := lru.New[string, T](most)
	if err != nil {
		panic(err) // the sizes are constants above zero
	}
	return c
}
