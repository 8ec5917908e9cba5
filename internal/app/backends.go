package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyhttp"
	"github.com/comfyd/comfyd/backend/localcomfy"
	"github.com/comfyd/comfyd/internal/config"
	"github.com/comfyd/comfyd/internal/logs"
	"github.com/comfyd/comfyd/modal"
)

// backends opens what COMFYD_BACKEND names, in its order. The role api has none.
func (a *App) backends(ctx context.Context) ([]backend.Backend, error) {
	if a.role == API {
		return nil, nil
	}
	var all []backend.Backend
	for _, kind := range a.config.Backends {
		b, err := a.open(ctx, kind)
		if err != nil {
			return nil, fmt.Errorf("backend %s: %w", kind, err)
		}
		a.later(func(context.Context) { a.note("closing the backend "+kind, b.Close()) })
		all = append(all, b)
	}
	return all, nil
}

func (a *App) open(ctx context.Context, kind string) (backend.Backend, error) {
	switch kind {
	case "local":
		return localcomfy.Start(ctx, localcomfy.Options{
			Dir: a.config.ComfyDir, DataDir: a.config.DataDir, Python: a.config.ComfyPython, Args: a.config.ComfyArgs,
			Previews: a.config.Previews, StallTimeout: time.Duration(a.config.StallTimeout), Log: a.log,
		})
	case "modal":
		return modal.New(modal.Options{
			App: a.config.ModalApp, Environment: a.config.ModalEnv, GPUs: a.config.ModalGPUs, Slots: a.config.ModalSlots, Previews: a.config.Previews, Log: a.log, SDKLog: slog.New(logs.Slog(a.log)),
		})
	default: // "url": config allows nothing else
		return comfyhttp.New(comfyhttp.Options{Pool: backend.Pool{Name: urlPool(a.config), Kind: "url"}, URLs: a.config.ComfyURLs, Previews: a.config.Previews, Log: a.log})
	}
}

// urlPool names the pool of COMFYUI_URLS. Workers that share its name share its jobs, so they must reach the same servers.
// A loopback address is another ComfyUI on each machine, and no error would tell: there the pool is the machine's own.
func urlPool(c *config.Config) string {
	site := c.Site
	if site == "" && !c.Embedded() && c.OwnMachine() {
		site = localcomfy.HostName()
	}
	if site == "" {
		return "url"
	}
	return "url-" + site
}
