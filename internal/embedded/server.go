//go:build !noembedded

package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"go.temporal.io/server/temporal"
)

const (
	lockFile = "temporal.lock"
	// readyTime bounds the wait for the frontend after the services have started. Here it takes below a second.
	readyTime = 60 * time.Second
	// stopTime bounds a stop; the server takes one second, its own time for draining requests.
	stopTime     = 20 * time.Second
	minRetention = time.Hour
)

// Server is a running Temporal server.
type Server struct {
	address, uiAddress string

	lock   *flock.Flock
	db     *database
	server temporal.Server
	ui     *ui
	log    *serverLogger

	failed  chan error
	stopped chan struct{}
	once    sync.Once
	stopErr error
}

// Start starts the server and waits until workflows can be started, with every search attribute. It takes about a
// second. An error is always an [*Error]; the folder is free again then, and whatever had started has been stopped.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Namespace == "" {
		o.Namespace = "default"
	}
	if o.DataDir == "" || o.Listen == "" {
		return nil, fail(BadOptions, nil, "embedded Temporal: DataDir and Listen are needed")
	}
	if o.Retention < minRetention {
		return nil, fail(BadOptions, nil, "embedded Temporal: a retention of %s is below Temporal's minimum of %s: set COMFYD_RETENTION higher", o.Retention, minRetention)
	}
	s := &Server{log: newServerLogger(o.Log), failed: make(chan error, 1), stopped: make(chan struct{})}
	if err := s.start(ctx, o); err != nil {
		if ctx.Err() != nil {
			err = fail(StartFailed, ctx.Err(), "the start of the embedded Temporal was broken off: %v", context.Cause(ctx))
		}
		if after := s.abandon(); after != nil {
			s.log.log.WithError(after).Warn("cleaning up after a start that failed")
		}
		return nil, err
	}
	s.log.enter(running)
	go s.watch()
	return s, nil
}

func (s *Server) start(ctx context.Context, o Options) error {
	folder, err := filepath.Abs(o.DataDir)
	if err != nil {
		return fail(FolderUnusable, err, "the data folder %s: %v", o.DataDir, err)
	}
	if s.lock, err = lockFolder(folder); err != nil {
		return err
	}
	frontend, err := bind(o.Listen, "COMFYD_TEMPORAL_LISTEN")
	if err != nil {
		return err
	}
	defer frontend.Close()
	var uiListener *net.TCPListener
	if o.UIListen != "" {
		if uiListener, err = bind(o.UIListen, "COMFYD_TEMPORAL_UI_LISTEN"); err != nil {
			return err
		}
		defer func() {
			if s.ui == nil {
				uiListener.Close()
			}
		}()
	}

	s.db = newDatabase(folder)
	if err := s.db.prepare(ctx); err != nil {
		return typed(StartFailed, err, "preparing the database")
	}
	if err := s.guard(func() error { return s.db.prepareNamespace(ctx, o, s.log) }); err != nil {
		return typed(StartFailed, err, "preparing the namespace")
	}
	if err := s.db.verifyDurable(); err != nil {
		return typed(StartFailed, err, "checking the database's settings")
	}

	ports, err := reserve(servicePorts)
	if err != nil {
		return err
	}
	if err := frontend.Close(); err != nil {
		return typed(StartFailed, err, "handing the address over")
	}
	if err := s.launch(frontend.Addr().(*net.TCPAddr), ports); err != nil {
		return err
	}
	if err := s.awaitReady(ctx, o); err != nil {
		return err
	}
	if uiListener != nil {
		s.uiAddress = reachable(uiListener.Addr().(*net.TCPAddr))
		if s.ui, err = startUI(uiListener, s.address, o, s.log.log); err != nil {
			return typed(StartFailed, err, "starting the UI")
		}
	}
	return nil
}

// launch starts the server on the frontend's address and on the services' ports, all of them free.
func (s *Server) launch(address *net.TCPAddr, ports []int) error {
	s.address = reachable(address)
	err := s.guard(func() (err error) {
		if s.server, err = temporal.NewServer(serverOptions(s.db, address, ports, s.log)...); err != nil {
			return err
		}
		return s.server.Start()
	})
	return typed(StartFailed, err, "starting")
}

// lockFolder makes the folder and takes its lock, which the system gives back however the process ends. Two servers on
// one file both start, and steal the shard from each other.
func lockFolder(folder string) (*flock.Flock, error) {
	unusable := func(err error) error {
		return fail(FolderUnusable, err, "the data folder %s cannot be written: %v: correct its permissions or set COMFYD_DATA_DIR to another", folder, err)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, unusable(err)
	}
	lock := flock.New(filepath.Join(folder, lockFile), flock.SetPermissions(0o600))
	got, err := lock.TryLock()
	if err != nil {
		return nil, unusable(err)
	}
	if !got {
		return nil, fail(FolderLocked, nil, "the data folder %s is in use by another comfyd: stop that one, or set COMFYD_DATA_DIR to another folder", folder)
	}
	return lock, nil
}

// guard runs code of the server on a goroutine of its own, and turns its panics and fatal log lines into errors.
func (s *Server) guard(f func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errors.New("it gave up without a reason") // stays, where a fatal line ends this goroutine
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
			result <- err
		}()
		err = f()
	}()
	err := <-result
	if err == nil {
		return nil
	}
	select {
	case fatal := <-s.log.life.fatal:
		return errors.New(fatal)
	default:
		return err
	}
}

// watch hands on a fatal log line of the running server.
func (s *Server) watch() {
	select {
	case fatal := <-s.log.life.fatal:
		s.failed <- fail(Crashed, nil, "the embedded Temporal failed: %s: restart comfyd; jobs go on from where they were", fatal)
	case <-s.stopped:
	}
}

// Address is where the gRPC frontend is reached, as host:port.
func (s *Server) Address() string { return s.address }

// UIAddress is where the UI is reached, as host:port; empty where there is none.
func (s *Server) UIAddress() string { return s.uiAddress }

// Failed delivers an [*Error] if the server meets what would have ended a process of its own. Stop and exit then.
func (s *Server) Failed() <-chan error { return s.failed }

// Stop ends the UI and the server, brings all data into temporal.db and unlocks the folder. It takes one to two seconds
// and may be called more than once. Stop clients and workers first.
func (s *Server) Stop() error {
	s.once.Do(func() {
		s.log.enter(stopping)
		close(s.stopped)
		s.stopErr = s.abandon()
	})
	return s.stopErr
}

// abandon stops what has been started, however far that went.
func (s *Server) abandon() error {
	s.log.enter(stopping)
	if s.ui != nil {
		s.ui.stop()
	}
	var errs []error
	if s.server != nil {
		stopped := make(chan error, 1)
		go func() { stopped <- s.guard(s.server.Stop) }()
		timer := time.NewTimer(stopTime)
		defer timer.Stop()
		select {
		case err := <-stopped:
			if err != nil {
				errs = append(errs, typed(StopFailed, err, "stopping"))
			}
		case <-timer.C:
			// The folder stays locked: the server may still write.
			return fail(StopFailed, nil, "the embedded Temporal did not stop within %s; its data is safe, end the process", stopTime)
		}
		ctx, done := context.WithTimeout(context.Background(), stopTime)
		defer done()
		if err := s.db.checkpoint(ctx); err != nil {
			errs = append(errs, fail(StopFailed, err, "bringing temporal.db up to date: %v; its data is safe in temporal.db-wal", err))
		}
	}
	if s.lock != nil {
		if err := s.lock.Unlock(); err != nil {
			errs = append(errs, fail(StopFailed, err, "unlocking the data folder: %v", err))
		}
	}
	return errors.Join(errs...)
}
