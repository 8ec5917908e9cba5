package config

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

// WebhookSecret signs the messages to a tenant's receivers; without a tenant, those to all who have none of their own.
type WebhookSecret struct{ Tenant, Value string }

const webhookSecretPrefix = "whsec_"

// webhooks reads who is told of which tenant's jobs, and what signs the messages. Addresses are hidden: most receivers know
// their callers by a part of them.
func (c *Config) webhooks() error {
	held, err := indirect("COMFYD_WEBHOOK_SECRETS", c.WebhookSecretList)
	if err != nil {
		return err
	}
	for _, entry := range entries(held) {
		tenant, value, own := strings.Cut(entry, ":")
		if !own {
			tenant, value = "", entry
		}
		text, ours := strings.CutPrefix(value, webhookSecretPrefix)
		raw, err := base64.StdEncoding.DecodeString(text)
		if !ours || err != nil || len(raw) < 24 || len(raw) > 64 || own && !comfy.ValidTenant(tenant) {
			return &Error{"COMFYD_WEBHOOK_SECRETS", "(hidden)", "whsec_ and 24 to 64 bytes in base64 (echo whsec_$(openssl rand -base64 32)), separated by commas; tenant:whsec_... for one tenant; or @file"}
		}
		c.WebhookSecrets = append(c.WebhookSecrets, WebhookSecret{Tenant: tenant, Value: value})
	}
	if held, err = indirect("COMFYD_WEBHOOKS", c.WebhookList); err != nil {
		return err
	}
	for _, entry := range entries(held) {
		tenant, address, _ := strings.Cut(entry, "=")
		if !comfy.ValidTenant(tenant) || !isHTTP(address) || c.Webhooks[tenant] != "" {
			return &Error{"COMFYD_WEBHOOKS", "(hidden)", "tenant=https://example.com/hook, separated by commas (a comma in an address is %2C), one for each tenant; or @file"}
		}
		if c.Webhooks == nil {
			c.Webhooks = map[string]string{}
		}
		c.Webhooks[tenant] = address
	}
	return nil
}

// webhookTenants refuses what is meant for a tenant that nobody is.
func (c *Config) webhookTenants() error {
	known := func(tenant string) bool {
		return tenant == c.ChildTenant || slices.ContainsFunc(c.Keys, func(k Key) bool { return k.Tenant == tenant })
	}
	for tenant := range c.Webhooks {
		if !known(tenant) {
			return &Error{"COMFYD_WEBHOOKS", tenant, "tenants that have a key in COMFYD_API_KEYS"}
		}
	}
	for _, s := range c.WebhookSecrets {
		if s.Tenant != "" && !known(s.Tenant) {
			return &Error{"COMFYD_WEBHOOK_SECRETS", s.Tenant, "tenants that have a key in COMFYD_API_KEYS"}
		}
	}
	return nil
}

// entries are the parts of a list; one that is empty is none.
func entries(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
