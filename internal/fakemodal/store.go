package fakemodal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"crypto/rand"
)

// store keeps values as files, one folder a kind: Dir/state/<kind>/<id>.json.
type store struct {
	dir string
}

func openStore(dir string) (*store, error) {
	if dir == "" {
		return nil, errors.New("fakemodal: Options.Dir is empty; it needs a folder")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("fakemodal: %w", err)
	}
	for _, sub := range []string{"blobs", "files", "containers", "state", "volumes"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("fakemodal: %w", err)
		}
	}
	return &store{dir: dir}, nil
}

func (s *store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *store) put(kind, id string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("fakemodal: keep %s %s: %w", kind, id, err)
	}
	name := s.path("state", kind, id+".json")
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("fakemodal: %w", err)
	}
	if err := os.WriteFile(name+".tmp", data, 0o600); err != nil {
		return fmt.Errorf("fakemodal: %w", err)
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return fmt.Errorf("fakemodal: %w", err)
	}
	return nil
}

// load decodes every value of a kind.
func load[T any](s *store, kind string, add func(*T)) error {
	names, err := os.ReadDir(s.path("state", kind))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("fakemodal: %w", err)
	}
	for _, n := range names {
		if !strings.HasSuffix(n.Name(), ".json") {
			continue
		}
		data, err := os.ReadFile(s.path("state", kind, n.Name()))
		if err != nil {
			return fmt.Errorf("fakemodal: %w", err)
		}
		v := new(T)
		if err := json.Unmarshal(data, v); err != nil {
			return fmt.Errorf("fakemodal: %s/%s: %w", kind, n.Name(), err)
		}
		add(v)
	}
	return nil
}

// newID is an object's ID as Modal writes it: a prefix of two letters and 22 of base 62.
func newID(prefix string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	raw := make([]byte, 22)
	_, _ = rand.Read(raw)
	for i, b := range raw {
		raw[i] = digits[int(b)%len(digits)]
	}
	return prefix + "-" + string(raw)
}
