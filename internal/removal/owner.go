package removal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

const (
	// OwnerKey is the object that says whose a store is: the ID of the Temporal namespace whose jobs lie in it. Another
	// one knows none of these jobs, and its sweep would remove them all.
	OwnerKey = "owner/namespace"
	maxOwner = 256
)

// Owner reads the ID of the namespace that a store belongs to; empty where nobody has taken it yet.
func Owner(ctx context.Context, s Store) (_ string, err error) {
	r, err := s.Open(ctx, OwnerKey, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading whose the store is: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(r, maxOwner))
	if err != nil {
		return "", fmt.Errorf("reading whose the store is: %w", err)
	}
	return string(raw), nil
}

// Claim takes a store for the namespace with this ID, in place of any other. Two that claim it at once both succeed, and
// the last has it: whoever is about to remove something asks Owner anew.
func Claim(ctx context.Context, s Store, id string) error {
	if id == "" {
		return errors.New("the namespace has no ID")
	}
	if _, err := s.Put(ctx, OwnerKey, strings.NewReader(id)); err != nil {
		return fmt.Errorf("noting whose the store is: %w", err)
	}
	return nil
}
