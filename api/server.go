// Package api is comfyd's HTTP side: the calls of the PRD and what was added to them, written on Fiber. It is the only
// place that turns HTTP into Temporal calls. It keeps nothing but caches: jobs live in Temporal, bytes in the store, so
// any number of replicas may serve the same namespace.
package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/singleflight"

	"github.com/comfyd/comfyd/api/openapi"
	"github.com/comfyd/comfyd/internal/removal"
)

// Limits of one connection.
const (
	headerLimit   = 16 << 10         // bytes of request line and headers together
	headerTimeout = 30 * time.Second // for the headers, and for each pause within a body
	writeTimeout  = 30 * time.Second // for a short answer, and for each piece of a long one
	idleTimeout   = 2 * time.Minute
)

// Server answers HTTP requests. Its methods are safe for concurrent use.
type Server struct {
	opts     Options
	temporal Temporal
	store    Store
	catalogs Catalogs
	log      logrus.FieldLogger
	app      *fiber.App
	// templates are the routes, by method and template: what may name a request in a metric.
	templates map[string]bool
	page      *page
	keys      *keyring
	signer    *signer
	now       func() time.Time

	closed     *closedJobs
	open       *openJobs
	started    *openJobs                    // what this replica has started itself: only who they are is known
	deleted    *lru.Cache[string, struct{}] // runs
	reads      singleflight.Group
	rechecks   singleflight.Group
	remover    *removal.Remover
	watches    *watches
	feeds      *feeds
	memory     *budget
	fetcher    *fetcher
	deleteWait time.Duration // how long a DELETE holds for a job to end that it has canceled
	ready      readiness

	keepAlive, streamStall time.Duration
	patience               patience
	description            *openapi.Description

	admission   *admission
	withdrawals *withdrawals

	// life ends when the last response is out; draining ends when the server begins to stop, so that nobody holds it up.
	life     context.Context
	endLife  context.CancelFunc
	draining context.Context
	drain    context.CancelFunc
	leaving  atomic.Bool // soon
	lingers  sync.WaitGroup
	// background are the goroutines that no request waits for to their end; they end with life.
	background sync.WaitGroup

	mu        sync.Mutex
	listeners []net.Listener
}

// New makes a server; Serve starts it. A wrong option is an error that names it.
func New(o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Server{
		opts: o, temporal: o.Temporal, store: o.Store, catalogs: o.Catalogs, log: o.Log,
		keys:   newKeyring(o.Keys),
		signer: newSigner(o.SigningKey, o.Keys, o.DefaultTenant),
		now:    time.Now,
		closed: newClosedJobs(), open: newOpenJobs(), started: newOpenJobs(),
		memory: newBudget(bodiesInMemory * o.BodyLimit), deleteWait: deleteWait, fetcher: newFetcher(&o),
		keepAlive: keepAlive, streamStall: streamStall,
		patience: patience{read: readTimeout, query: queryTimeout, own: queryPatience, note: noteTimeout, poll: longPoll},
	}
	deleted, err := lru.New[string, struct{}](maxDeleted)
	if err != nil {
		return nil, err
	}
	s.deleted = deleted
	if s.description, err = openapi.New(o.Version, s.absent()...); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if s.page, err = newPage(); err != nil {
		return nil, err
	}
	s.remover = &removal.Remover{Temporal: o.Temporal, Namespace: o.Namespace, NamespaceID: o.NamespaceID, Store: o.Store}
	s.life, s.endLife = context.WithCancel(context.Background())
	s.draining, s.drain = context.WithCancel(s.life)
	s.admission, s.withdrawals, s.watches = newAdmission(s), newWithdrawals(), newWatches(s)
	s.feeds = newFeeds(s)
	if o.LiveHere {
		o.Live.Turns(func(job string) { s.open.turn(job, s.now()) })
	}
	s.build()
	return s, nil
}

// build makes the Fiber app.
func (s *Server) build() {
	s.app = fiber.New(fiber.Config{
		AppName:                      "comfyd",
		CaseSensitive:                true,
		Immutable:                    true, // strings of a request outlive it: in caches, and as keys of shared reads
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		BodyLimit:                    int(s.opts.BodyLimit),
		ReadTimeout:                  headerTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		ReadBufferSize:               headerLimit,
		WriteBufferSize:              headerLimit,
		ErrorHandler:                 s.handleError,
		DisableStartupMessage:        true,
		EnableTrustedProxyCheck:      true, // without it Fiber believes everybody's X-Forwarded-*
		TrustedProxies:               s.opts.TrustedProxies,
		ProxyHeader:                  fiber.HeaderXForwardedFor,
		EnableIPValidation:           true,
	})
	s.routes()
	server := s.app.Server()
	server.Handler = s.serve(server.Handler)
	server.HeaderReceived = s.headerReceived
	server.CloseOnShutdown = true
}

// Serve answers requests on l until Shutdown is called. It closes l.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
	s.mu.Unlock()
	if s.draining.Err() != nil {
		return l.Close()
	}
	if err := s.app.Listener(l); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}

// Leave says in /readyz that the server is about to stop, so that new clients go elsewhere. It goes on serving.
func (s *Server) Leave() { s.leaving.Store(true) }

// Shutdown stops listening, lets requests end, and returns when all have, or with ctx's error when it ends first.
// Requests that wait for a job's end are answered at once.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.background.Wait()
	defer s.endLife()
	s.drain()
	// The HTTP library knows a listener only from some moment within Serve on.
	s.mu.Lock()
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.log.WithError(err).Warn("closing a listener failed")
		}
	}
	s.mu.Unlock()
	err := s.app.ShutdownWithContext(ctx)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("stop the HTTP server: %w", err)
	}
	s.lingers.Wait()
	s.fetcher.client.CloseIdleConnections()
	return nil
}
