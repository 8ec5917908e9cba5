package app

import (
	"context"
	"errors"
	"net/http"
	"net/http/pprof"
	"runtime"
	"time"
)

const (
	// blockedFor is what a goroutine waits, on average, until one of its waits is noted; mutexWaits is how many waits for a
	// lock it takes. Both are rare enough not to be felt.
	blockedFor = 100 * time.Microsecond
	mutexWaits = 100
)

// profiles serves Go's profiles of this process where COMFYD_PPROF_LISTEN asks for them.
func (a *App) profiles() error {
	if a.config.PprofListen == "" {
		return nil
	}
	l, err := listenOn("COMFYD_PPROF_LISTEN", a.config.PprofListen)
	if err != nil {
		return err
	}
	runtime.SetBlockProfileRate(int(blockedFor))
	runtime.SetMutexProfileFraction(mutexWaits)
	routes := http.NewServeMux()
	routes.HandleFunc("/debug/pprof/", pprof.Index)
	routes.HandleFunc("/debug/pprof/profile", pprof.Profile)
	routes.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s := &http.Server{Handler: routes, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.note("the profiles have stopped", err)
		}
	}()
	a.later(func(context.Context) {
		a.note("stopping the profiles", s.Close())
		<-served
	})
	return nil
}
