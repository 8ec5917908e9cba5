package config

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/comfyd/comfyd/comfy"
)

// keyFile is the API key's name in the data folder.
const keyFile = "api-key"

// NewKey makes a key for a tenant, as COMFYD_API_KEYS takes it.
func NewKey(tenant string) (Key, error) {
	if !comfy.ValidTenant(tenant) {
		return Key{}, fmt.Errorf("%q is no tenant: use up to 64 letters, digits, dots, dashes and underscores, not beginning with a dot", tenant)
	}
	return Key{Tenant: tenant, Secret: newSecret()}, nil
}

// Entry is the key as COMFYD_API_KEYS has it.
func (k Key) Entry() string { return k.Tenant + ":" + k.Secret }

// ReadKeys reads the API keys that a comfyd with this environment takes, and tells where they come from. It makes none:
// there is no key where the data folder has none yet.
func ReadKeys() (keys []Key, from string, err error) {
	c, err := parse(environment())
	if err != nil {
		return nil, "", err
	}
	if c.APIKeys == "" {
		from = filepath.Join(c.DataDir, keyFile)
		raw, err := os.ReadFile(from)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, from, nil
		}
		if err != nil {
			return nil, from, fmt.Errorf("reading the API key: %w", err)
		}
		return []Key{defaultKey(strings.TrimSpace(string(raw)))}, from, nil
	}
	from = "COMFYD_API_KEYS"
	if file, ok := strings.CutPrefix(c.APIKeys, "@"); ok {
		from = file
	}
	list, err := indirect("COMFYD_API_KEYS", c.APIKeys)
	if err != nil {
		return nil, from, err
	}
	keys, err = parseKeys(list)
	return keys, from, err
}

// defaultKey is the one that comfyd makes.
func defaultKey(secret string) Key { return Key{Tenant: "default", Secret: secret} }

// apiKeys reads the API keys, or makes one.
func (c *Config) apiKeys() error {
	list, err := indirect("COMFYD_API_KEYS", c.APIKeys)
	if err != nil {
		return err
	}
	if list == "" {
		secret, err := c.made(keyFile)
		if err != nil {
			return err
		}
		list = defaultKey(secret).Entry()
	}
	c.Keys, err = parseKeys(list)
	return err
}

func parseKeys(list string) (keys []Key, err error) {
	for kv := range strings.SplitSeq(list, ",") {
		tenant, secret, ok := strings.Cut(strings.TrimSpace(kv), ":")
		if !ok || !comfy.ValidTenant(tenant) || len(secret) < 16 {
			return nil, &Error{"COMFYD_API_KEYS", "(hidden)", "tenant:secret, separated by commas, each tenant up to 64 letters, digits, dots, dashes and underscores, not beginning with a dot, each secret 16 characters or more; or @file"}
		}
		if slices.ContainsFunc(keys, func(k Key) bool { return k.Secret == secret && k.Tenant != tenant }) {
			return nil, &Error{"COMFYD_API_KEYS", "(hidden)", "a secret of its own for each tenant: " + tenant + " has that of another, and nobody could tell them apart"}
		}
		keys = append(keys, Key{Tenant: tenant, Secret: secret})
	}
	return keys, nil
}

// newSecret is random and can stand in a list, a header and a shell.
func newSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
