// Package app puts comfyd together: it alone knows every part. Start brings the parts of a role up in order, Stop takes
// them down in the opposite one.
package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/api"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/internal/catalog"
	"github.com/comfyd/comfyd/internal/codec"
	"github.com/comfyd/comfyd/internal/config"
	"github.com/comfyd/comfyd/internal/disk"
	"github.com/comfyd/comfyd/internal/live"
	"github.com/comfyd/comfyd/internal/telemetry"
	"github.com/comfyd/comfyd/store"
	"github.com/comfyd/comfyd/worker"
)

// Role says which parts run in this process.
type Role string

const (
	Serve  Role = "serve"  // everything, with Temporal embedded unless TEMPORAL_ADDRESS is set
	API    Role = "api"    // the HTTP API alone
	Worker Role = "worker" // the worker alone
)

// ErrNeedsTemporal says that a role of its own has no Temporal to share.
var ErrNeedsTemporal = errors.New("the roles api and worker meet at a Temporal server: set TEMPORAL_ADDRESS, or run comfyd serve")

// App is one process of comfyd.
type App struct {
	config  *config.Config
	role    Role
	version string
	log     logrus.FieldLogger

	undo     []func(context.Context)
	worker   *worker.Worker // nil in the role api
	api      *api.Server    // nil in the role worker
	failed   chan error
	listener net.Listener

	telemetry *telemetry.Telemetry
	tracing   *telemetry.Tracing // nil where nobody asked for traces
	metrics   net.Listener       // nil where COMFYD_METRICS_LISTEN is not set
	codec     *codec.Codec
	workers   client.Client // the one that workers use: see codec.ForWorkers

	namespace   string        // of Temporal
	namespaceID string        // of that namespace; it stays when the namespace's name is given to another
	retention   time.Duration // of that namespace

	TemporalAddress, TemporalUI string
}

// New prepares an app; nothing runs before Start.
func New(c *config.Config, role Role, version string, log logrus.FieldLogger) *App {
	return &App{config: c, role: role, version: version, log: log, failed: make(chan error, 1)}
}

// Address is where the API listens, once started: "127.0.0.1:8080"; empty without an API.
func (a *App) Address() string {
	if a.listener == nil {
		return ""
	}
	return a.listener.Addr().String()
}

// Failed delivers the error with which a part has ended by itself.
func (a *App) Failed() <-chan error { return a.failed }

// fail keeps the first error for Failed.
func (a *App) fail(err error) {
	select {
	case a.failed <- err:
	default:
		a.log.WithError(err).Error("another part has failed")
	}
}

// Start brings everything up. When it fails, nothing is left running.
func (a *App) Start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			a.Stop(context.WithoutCancel(ctx))
		}
	}()
	if a.role != Serve && a.config.Embedded() {
		return ErrNeedsTemporal
	}
	if a.codec, err = newCodec(a.config); err != nil {
		return err
	}
	if err := a.profiles(); err != nil {
		return err
	}
	if a.role != Worker {
		if err := a.listen(); err != nil {
			return err
		}
	}
	if err := a.observe(ctx); err != nil {
		return err
	}
	opened, err := store.Open(ctx, a.config.StoreURL)
	if err != nil {
		return fmt.Errorf("COMFYD_STORE_URL: %w", err) // not the value: somebody may have put credentials into it
	}
	a.later(func(context.Context) { a.note("closing the store", opened.Close()) })
	blobs := a.telemetry.Store(opened)
	temporal, err := a.temporal(ctx)
	if err != nil {
		return err
	}
	if err := a.own(ctx, blobs); err != nil {
		return err
	}
	hub, err := a.openHub(ctx)
	if err != nil {
		return err
	}
	backends, err := a.backends(ctx)
	if err != nil {
		return err
	}
	publisher := catalog.NewPublisher(blobs, workerName(), backends, a.log)
	directory := catalog.NewDirectory(blobs, refresher(backends, publisher))
	limits := activities.Limits{
		Start: time.Duration(a.config.StartTimeout),
		Run:   time.Duration(a.config.RunTimeout),
		Stall: time.Duration(a.config.StallTimeout),
	}
	if a.role != API {
		w := worker.New(worker.Options{
			Client: a.workers, Backends: backends, Store: blobs, Publisher: publisher, Directory: directory, Live: hub, Limits: limits, Log: a.log,
			ChildTenant: a.config.Children(), Callable: a.outbound().Check,
			Converter:  a.codec.Converter(),
			Sweep:      worker.SweepOptions{Namespace: a.namespace, Store: blobs},
			GoneAfter:  time.Duration(a.config.PoolTimeout),
			Deployment: worker.Deployment{Name: a.config.Deployment, BuildID: cmp.Or(a.config.BuildID, a.version)},
			Drain:      func(p backend.Pool) time.Duration { return a.config.Drain(p.Kind) },
			Fatal:      func(err error) { a.fail(fmt.Errorf("the worker has stopped: %w", err)) },
		})
		if err := w.Start(); err != nil {
			return err
		}
		a.later(w.Stop)
		a.worker = w
		a.sampleBackends(backends)
	}
	if a.role != Worker {
		return a.serve(temporal, blobs, directory, hub, limits)
	}
	return nil
}

// Drain takes no more prompts and follows those that run, where the settings say so, until they have ended, their time is
// over or ctx ends. The API goes on; its /readyz says that it is stopping. Stop is to follow.
func (a *App) Drain(ctx context.Context) {
	if a.worker == nil || a.worker.Drains() == 0 {
		return
	}
	if a.api != nil {
		a.api.Leave()
	}
	a.log.Infof("no more jobs are taken; those that run have up to %s to end (COMFYD_DRAIN_TIMEOUT), a second signal ends the wait", a.worker.Drains())
	a.worker.Drain(ctx)
}

// Stop takes down what Start has brought up, last first. Jobs that run go on when comfyd is started again.
func (a *App) Stop(ctx context.Context) {
	for _, f := range slices.Backward(a.undo) {
		f(ctx)
	}
	a.undo = nil
}

func (a *App) later(f func(context.Context)) { a.undo = append(a.undo, f) }

func (a *App) note(what string, err error) {
	if err != nil {
		a.log.WithError(err).Warn(what)
	}
}

// listenOn takes the port that a setting names.
func listenOn(setting, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w; stop what listens there, or choose another address", setting, address, err)
	}
	return l, nil
}

// listen takes the API's port first, so that a taken one is told at once.
func (a *App) listen() error {
	l, err := listenOn("COMFYD_LISTEN", a.config.Listen)
	if err != nil {
		return err
	}
	if a.config.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(a.config.TLSCert, a.config.TLSKey)
		if err != nil {
			return errors.Join(fmt.Errorf("COMFYD_TLS_CERT, COMFYD_TLS_KEY: %w", err), l.Close())
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	}
	a.listener = l
	a.later(func(context.Context) { _ = l.Close() }) // closed already where the API served it
	return nil
}

func (a *App) serve(temporal client.Client, blobs *telemetry.Store, directory *catalog.Directory, hub *live.Hub, limits activities.Limits) error {
	var keys []api.Key
	for _, k := range a.config.Keys {
		keys = append(keys, api.Key{Tenant: k.Tenant, Secret: k.Secret})
	}
	sender := a.sender()
	s, err := api.New(api.Options{
		Temporal: starter{Client: temporal, workers: a.workers}, EagerStart: a.worker != nil && a.config.Deployment == "",
		Namespace: a.namespace, NamespaceID: a.namespaceID, Store: blobs, Catalogs: directory,
		Keys: keys, DefaultTenant: a.config.Children(), SigningKey: a.config.Signing,
		Webhooks: sender, DefaultWebhooks: a.config.Webhooks,
		PublicURL: a.config.PublicURL, LinkURL: a.linkURL(), TrustedProxies: a.config.TrustedProxies, CORSOrigins: a.config.CORSOrigins,
		TemporalUI: a.temporalUI(), KeyFile: a.config.KeyFile(),
		Converter: a.codec.Converter(), CodecServer: a.codecServer(),
		MaxOpenJobs: a.config.MaxOpenJobs, MaxOpenJobsPerTenant: a.config.MaxOpenJobsPerTenant, Space: a.disks().Check,
		MaxEventStreamsPerTenant: a.config.MaxEventStreamsPerTenant, Live: hub, LiveHere: a.worker != nil && a.config.Embedded(),
		Outbound: a.outbound(), BodyLimit: int64(a.config.BodyLimit), StartTimeout: limits.Start, RunTimeout: limits.Run,
		Retention: a.retention, Version: a.version, Log: a.log,
		Metrics: a.metricsOfAPI(), Observed: a.telemetry.Request, Tracer: a.tracerOfAPI(),
	})
	if err != nil {
		return fmt.Errorf("starting the API: %w", err)
	}
	a.api = s
	a.sampleJobs(temporal, directory, s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Serve(a.listener); err != nil {
			a.fail(fmt.Errorf("the API has stopped: %w", err))
		}
	}()
	a.later(func(ctx context.Context) {
		a.note("stopping the API", s.Shutdown(ctx))
		<-served
	})
	return a.deliver(s)
}

// disks are the file systems that this process fills: the embedded Temporal's, and the store's where it is a folder.
func (a *App) disks() *disk.Guard {
	g := &disk.Guard{Min: uint64(a.config.MinFreeDisk)}
	if a.config.Embedded() {
		g.Folders = append(g.Folders, disk.Folder{Path: a.config.DataDir, What: "the jobs", Setting: "COMFYD_DATA_DIR"})
	}
	if folder := store.FolderOf(a.config.StoreURL); folder != "" {
		g.Folders = append(g.Folders, disk.Folder{Path: folder, What: "the files", Setting: "COMFYD_STORE_URL"})
	}
	return g
}

// refresher makes this process's backends look again and publishes what they see; nil where it has none, as in the
// role api.
func refresher(backends []backend.Backend, p *catalog.Publisher) func(context.Context) error {
	if len(backends) == 0 {
		return nil
	}
	return func(ctx context.Context) error {
		var errs []error
		for _, b := range backends {
			errs = append(errs, b.Refresh(ctx))
		}
		// A backend that is down cannot have more than it had: what the others say still counts.
		if err := p.Publish(ctx, true); err != nil {
			return err
		}
		if len(errs) == 1 {
			return errs[0]
		}
		return nil
	}
}

// workerName tells the workers of one store apart.
func workerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}
