package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/comfyd/comfyd/internal/live"
)

// openHub makes what news of prompts go through. Worker and API of one process share it; where COMFYD_EVENTS_LISTEN is
// set, the APIs of other processes follow this worker's prompts, too.
func (a *App) openHub(ctx context.Context) (*live.Hub, error) {
	if a.config.EventsListen == "" || a.role == API {
		return live.NewHub(""), nil
	}
	l, err := listenOn("COMFYD_EVENTS_LISTEN", a.config.EventsListen)
	if err != nil {
		return nil, err
	}
	base, err := a.reachedAt(ctx, l.Addr().(*net.TCPAddr))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	hub := live.NewHub(base)
	s, served := hub.Server(), make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.note("the API hears of this worker's prompts by Temporal alone", err)
		}
	}()
	a.later(func(context.Context) {
		a.note("stopping the listener of COMFYD_EVENTS_LISTEN", s.Close())
		<-served
	})
	return hub, nil
}

// reachedAt is the URL under which other processes reach a listener. One on all addresses is named by that from which this
// machine reaches Temporal, where they are at home, too.
func (a *App) reachedAt(ctx context.Context, at *net.TCPAddr) (string, error) {
	if !at.IP.IsUnspecified() {
		return "http://" + at.String(), nil
	}
	server := a.config.TemporalAddress
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	way, err := (&net.Dialer{}).DialContext(ctx, "udp", server) // sends nothing
	if err != nil {
		return "", fmt.Errorf("COMFYD_EVENTS_LISTEN=%s: this machine's own address is not to be found by the way to TEMPORAL_ADDRESS (%w); name it in place of the one for all", a.config.EventsListen, err)
	}
	defer way.Close()
	own := way.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
	return "http://" + net.JoinHostPort(own.String(), fmt.Sprint(at.Port)), nil
}
