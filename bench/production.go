package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/comfyd/comfyd/internal/cluster"
)

// startProduction starts what docker-compose.yml describes, but for the proxy: PostgreSQL, a Temporal server, an S3 server,
// two workers, and two APIs, between which the client's connections are shared out.
func startProduction(_ context.Context, _ programs, comfy *comfyui, dir string) (s *system, err error) {
	st := &stage{dir: dir}
	defer func() {
		if r := recover(); r != nil {
			failure, ok := r.(error)
			if !ok || !errors.As(failure, new(stageError)) && !errors.As(failure, new(leftOut)) {
				panic(r)
			}
			s, err = nil, errors.Join(failure, st.end())
		}
	}()
	c := cluster.New(st, append(bounds(), "COMFYUI_URLS=http://"+comfy.address)...)
	var hosts []string
	for _, u := range c.URLs {
		hosts = append(hosts, strings.TrimPrefix(u, "http://"))
	}
	s = &system{adapter: comfyd{}, addresses: strings.Join(hosts, ","), key: c.Key, temporal: c.TemporalAddress, namespace: c.Namespace, stop: st.end}
	c.APIs[0].Stop()
	began := time.Now()
	c.APIs[0].Start()
	s.starts = []started{{"api, beside its Temporal", time.Since(began)}}
	for _, p := range []struct {
		name string
		all  []*cluster.Process
	}{{"api", c.APIs[:]}, {"worker", c.Workers[:]}, {"Temporal", []*cluster.Process{c.Temporal}}, {"PostgreSQL", []*cluster.Process{c.Postgres}}, {"S3", []*cluster.Process{c.S3}}} {
		for _, one := range p.all {
			s.processes = append(s.processes, process{p.name, one.PID()})
		}
	}
	return s, nil
}

// stage is where a cluster that was made for tests plays without one. It ends with end; a failure is a panic with a
// stageError, a skip one with leftOut.
type stage struct {
	testing.TB
	dir     string
	folders int
	undo    []func()
	said    []string
}

type stageError string

func (e stageError) Error() string { return "the production shape: " + string(e) }

func (s *stage) end() error {
	for _, f := range slices.Backward(s.undo) {
		f()
	}
	s.undo = nil
	if len(s.said) > 0 {
		return stageError(strings.Join(s.said, "\n"))
	}
	return nil
}

// The parts of testing.TB that internal/cluster uses.

func (s *stage) Helper()                    {}
func (s *stage) Cleanup(f func())           { s.undo = append(s.undo, f) }
func (s *stage) Failed() bool               { return len(s.said) > 0 }
func (s *stage) Logf(f string, args ...any) { fmt.Fprintf(os.Stderr, f+"\n", args...) }
func (s *stage) Skipf(f string, args ...any) {
	panic(leftOut(fmt.Sprintf(f, args...)))
}

func (s *stage) Errorf(f string, args ...any) { s.said = append(s.said, fmt.Sprintf(f, args...)) }

func (s *stage) Fatalf(f string, args ...any) { panic(stageError(fmt.Sprintf(f, args...))) }

func (s *stage) TempDir() string {
	s.folders++
	dir := filepath.Join(s.dir, fmt.Sprint(s.folders))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.Fatalf("a folder: %v", err)
	}
	return dir
}
