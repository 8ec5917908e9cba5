package localcomfy

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// poolName is that of the data folder: made once, of the host's short name and a random part, and kept. A container has
// another host name at every start, and two hosts may have one name; jobs wait in a queue that is named after the pool.
func poolName(data string) (string, error) {
	path := filepath.Join(data, "pool")
	raw, err := os.ReadFile(path)
	name := strings.TrimSpace(string(raw))
	if err == nil && validPool.MatchString(name) {
		return name, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("reading the name of the local pool: %w", err)
	}
	id := make([]byte, 3)
	rand.Read(id) // never fails
	name = fmt.Sprintf("local-%s-%x", HostName(), id)
	if err := replaceFile(path, []byte(name+"\n")); err != nil {
		return "", fmt.Errorf("keeping the name of the local pool: %w", err)
	}
	return name, nil
}

var (
	validPool  = regexp.MustCompile(`^local-[a-z0-9-]{1,60}$`)
	notInNames = regexp.MustCompile(`[^a-z0-9]+`)
)

// HostName is the host's short name with what a task queue's name may hold, 40 characters at most.
func HostName() string {
	host, _ := os.Hostname()
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	host = strings.Trim(notInNames.ReplaceAllString(host, "-"), "-")
	if len(host) > 40 {
		host = strings.Trim(host[:40], "-")
	}
	if host == "" {
		host = "host"
	}
	return host
}
