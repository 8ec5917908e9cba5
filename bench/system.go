package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// system is one way to run jobs on the bench's ComfyUI: where it listens, its terms, and its processes.
type system struct {
	name, title string
	adapter
	addresses, key string
	processes      []process // what it needs beside ComfyUI
	profiles       string    // the address of its profiles, "" for none
	temporal       string    // the address of its Temporal, "" for none
	namespace      string    // of its jobs there
	stop           func() error
	// starts are how long it took to be ready, by what was started.
	starts []started
}

type started struct {
	what string
	took time.Duration
}

func (s *system) connect(conns int) *client { return connect(s.addresses, s.key, conns) }

// programs are what the bench runs, as scripts/bench.sh has prepared it.
type programs struct {
	comfyui string // a folder
	comfyd  string
	peer    string
	profile bool // have comfyd serve its profiles
}

// kind is a system before it is started.
type kind struct {
	name, title string
	start       func(ctx context.Context, p programs, comfy *comfyui, dir string) (*system, error)
}

// kinds are all systems, in the order of the table. Every figure of the others is held against the first one's.
func kinds() []kind {
	return []kind{
		{"direct", "ComfyUI, direct", startDirect},
		{"comfyd", "comfyd", startComfyd},
		{"production", "comfyd, production", startProduction},
		{"peer", "comfy-api-proxy", startPeer},
	}
}

func startDirect(_ context.Context, _ programs, comfy *comfyui, _ string) (*system, error) {
	return &system{adapter: direct{}, addresses: comfy.address, stop: func() error { return nil }}, nil
}

// bounds lets more jobs wait than comfyd does by default, for --growth with 10,000.
func bounds() []string {
	return []string{"COMFYD_MAX_OPEN_JOBS=100000", "COMFYD_MAX_OPEN_JOBS_PER_TENANT=100000"}
}

// startComfyd starts the whole comfyd as one process: once on an empty folder, and again on what that has left.
func startComfyd(ctx context.Context, p programs, comfy *comfyui, dir string) (*system, error) {
	var addresses []string
	for range 4 {
		a, err := freeAddress()
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, a)
	}
	data := filepath.Join(dir, "data")
	env := append(bounds(), "COMFYD_BACKEND=url", "COMFYUI_URLS=http://"+comfy.address, "COMFYD_DATA_DIR="+data,
		"COMFYD_LISTEN="+addresses[0], "COMFYD_TEMPORAL_LISTEN="+addresses[1], "COMFYD_TEMPORAL_UI_LISTEN="+addresses[2])
	s := &system{adapter: comfyd{}, addresses: addresses[0], temporal: addresses[1], namespace: "default"}
	if p.profile {
		s.profiles = addresses[3]
		env = append(env, "COMFYD_PPROF_LISTEN="+s.profiles)
	}
	run, err := newProgram(dir, []string{p.comfyd}, env...)
	if err != nil {
		return nil, err
	}
	s.stop = run.stop
	if s.starts, err = run.startTwice(ctx, "http://"+addresses[0]+"/readyz"); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(data, "api-key"))
	s.key, s.processes = strings.TrimSpace(string(raw)), []process{{"comfyd", run.pid()}}
	return s, err
}

// leftOut is why a system cannot be measured here. The others are.
type leftOut string

func (e leftOut) Error() string { return string(e) }

// startPeer starts comfy-api-proxy with a folder for its state, so that it too keeps its jobs over a restart.
func startPeer(ctx context.Context, p programs, comfy *comfyui, dir string) (*system, error) {
	if p.peer == "" {
		return nil, leftOut("no program is named with --peer")
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	_, port, _ := strings.Cut(address, ":")
	run, err := newProgram(dir, []string{p.peer, "--comfyui", "http://" + comfy.address, "--port", port, "--state-dir", filepath.Join(dir, "state")})
	if err != nil {
		return nil, err
	}
	s := &system{adapter: peer{}, addresses: address, stop: run.stop}
	if s.starts, err = run.startTwice(ctx, "http://"+address+"/api/v2/health"); err != nil {
		return nil, fmt.Errorf("comfy-api-proxy: %w", err)
	}
	s.processes = []process{{"comfy-api-proxy", run.pid()}}
	return s, nil
}
