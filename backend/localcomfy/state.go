package localcomfy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// state is what the next comfyd has to know about our ComfyUI. It is a hint, never trusted without a look at the
// process itself.
type state struct {
	Port int `json:"port"`
	// PID is 0 when none runs, or, where Command is set, when comfyd died between starting one and noting it.
	PID int `json:"pid,omitempty"`
	// Created is when the process began, in milliseconds, by which it is told from a later one of that PID.
	Created int64 `json:"created,omitempty"`
	// Command is its command line.
	Command []string `json:"command,omitempty"`
	Dir     string   `json:"dir,omitempty"`
}

func (b *Backend) statePath() string { return filepath.Join(b.data, "state.json") }

// readState returns an empty state where there is none that can be read.
func (b *Backend) readState() state {
	var s state
	raw, err := os.ReadFile(b.statePath())
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.WithError(err).Warn("what was remembered of ComfyUI cannot be read, and is passed over")
		return state{}
	}
	return s
}

func (b *Backend) writeState(s state) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(b.statePath(), raw)
}

// replaceFile leaves the old content or the new one, whenever we are killed.
func replaceFile(path string, content []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// choosePort keeps to the port of before as long as it is free or our ComfyUI has it: handles of open jobs hold it.
func (b *Backend) choosePort(ctx context.Context) (int, error) {
	if b.o.Port != 0 {
		return b.o.Port, nil
	}
	s := b.readState()
	if s.Port != 0 && (portFree(ctx, s.Port) || b.leftover(ctx, s) != nil) {
		return s.Port, nil
	}
	l, err := listen(ctx, 0)
	if err != nil {
		return 0, fmt.Errorf("finding a port for ComfyUI: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func portFree(ctx context.Context, port int) bool {
	l, err := listen(ctx, port)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func listen(ctx context.Context, port int) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}
