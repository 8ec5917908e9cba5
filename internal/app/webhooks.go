package app

import (
	"context"
	"fmt"

	"github.com/comfyd/comfyd/api"
	"github.com/comfyd/comfyd/internal/outbound"
	"github.com/comfyd/comfyd/internal/webhook"
	"github.com/comfyd/comfyd/worker"
)

// outbound calls what clients name.
func (a *App) outbound() *outbound.Caller { return outbound.New(a.config.PrivateNetworks) }

// sender signs webhooks, with the secrets that are set or with what the signing key makes of each tenant.
func (a *App) sender() *webhook.Sender {
	o := webhook.Options{Caller: a.outbound(), Fallback: a.config.Signing, Version: a.version, Observe: a.telemetry.Webhook, Log: a.log}
	for _, s := range a.config.WebhookSecrets {
		o.Secrets = append(o.Secrets, webhook.Secret{Tenant: s.Tenant, Value: s.Value})
	}
	s := webhook.New(o)
	a.later(func(context.Context) { s.Close() })
	return s
}

// deliver has the API post webhooks: it has their secrets, and the key that signs the links in them.
func (a *App) deliver(s *api.Server) error {
	w := worker.Webhooks(a.workers, s.Deliver, func(err error) { a.fail(fmt.Errorf("the delivery of webhooks has stopped: %w", err)) })
	if err := w.Start(); err != nil {
		return fmt.Errorf("starting the delivery of webhooks: %w", err)
	}
	a.later(func(context.Context) { w.Stop() })
	return nil
}
