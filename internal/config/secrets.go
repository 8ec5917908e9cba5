package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// secrets reads the API keys and the signing key, or makes them.
func (c *Config) secrets() error {
	err := c.apiKeys()
	if err != nil {
		return err
	}
	if c.SigningKey, err = indirect("COMFYD_SIGNING_KEY", c.SigningKey); err != nil {
		return err
	}
	if c.SigningKey == "" {
		if !c.Embedded() {
			return &Error{"COMFYD_SIGNING_KEY", "", "with TEMPORAL_ADDRESS set, give every api the same secret of 32 characters or more, or @file"}
		}
		if c.SigningKey, err = c.made("signing-key"); err != nil {
			return err
		}
	}
	if len(c.SigningKey) < 32 {
		return &Error{"COMFYD_SIGNING_KEY", "(hidden)", "32 characters or more; or @file"}
	}
	c.Signing = []byte(c.SigningKey)
	return c.webhookTenants()
}

// indirect is the value of a setting that may be given as @file: what the file holds, its lines joined by commas.
func indirect(name, value string) (string, error) {
	file, ok := strings.CutPrefix(value, "@")
	if !ok {
		return value, nil
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", &Error{name, value, "@ and a file that can be read: " + err.Error()}
	}
	held := strings.Join(strings.Fields(string(raw)), ",")
	if held == "" { // not the same as no setting: a secret must never be made up in place of one that was meant to be there
		return "", &Error{name, value, "@ and a file that is not empty"}
	}
	return held, nil
}

// secret reads a password that may be left out.
func secret(name, value string) (string, error) {
	held, err := indirect(name, value)
	if err == nil && held != "" && len(held) < 16 {
		err = &Error{name, "(hidden)", "16 characters or more; or @file"}
	}
	return held, err
}

// made is a secret of comfyd's own, kept in the data folder.
func (c *Config) made(name string) (string, error) {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return "", &Error{"COMFYD_DATA_DIR", c.DataDir, "a folder that comfyd can write to: " + err.Error()}
	}
	return secretFile(filepath.Join(c.DataDir, name))
}

// secretFile reads a secret that comfyd has made, or makes it, readable by its owner alone.
func secretFile(name string) (string, error) {
	raw, err := os.ReadFile(name)
	if err == nil {
		return strings.TrimSpace(string(raw)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	secret := newSecret()
	tmp := name + ".new" // a crash in between must not leave an empty key
	if err := os.WriteFile(tmp, []byte(secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("writing %s: %w", tmp, err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return "", fmt.Errorf("writing %s: %w", name, err)
	}
	return secret, nil
}
