package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// profiler fetches comfyd's profiles while a row is measured. A nil one does nothing.
type profiler struct {
	dir     string
	seconds int
}

// profiled are those that tell what has happened in a span of time; the heap is taken at its end.
var profiled = []string{"profile", "block", "mutex", "allocs"}

// begin starts the profiles of a system that has some. The function that it returns waits for them.
func (p *profiler) begin(ctx context.Context, s *system, row string) func() error {
	if p == nil || s.profiles == "" {
		return func() error { return nil }
	}
	names := profiled
	done := make(chan error, len(names))
	for _, name := range names {
		go func() {
			done <- p.fetch(ctx, s, name, fmt.Sprintf("?seconds=%d", p.seconds), filepath.Join(p.dir, row+"-"+s.name+"-"+name+".pb.gz"))
		}()
	}
	return func() error {
		var errs []error
		for range names {
			errs = append(errs, <-done)
		}
		errs = append(errs, p.fetch(ctx, s, "heap", "", filepath.Join(p.dir, row+"-"+s.name+"-heap.pb.gz")))
		return errors.Join(errs...)
	}
}

func (p *profiler) fetch(ctx context.Context, s *system, name, query, file string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.seconds)*time.Second+time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.profiles+"/debug/pprof/"+name+query, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the profile %s: %s: %.200s", name, res.Status, raw)
	}
	return os.WriteFile(file, raw, 0o644)
}
