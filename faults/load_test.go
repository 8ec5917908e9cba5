package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// jobsAtOnce is how many jobs the load tests submit: few by default, 1,000 for `make load`.
func jobsAtOnce(t *testing.T) int {
	t.Helper()
	text := os.Getenv("COMFYD_TEST_LOAD")
	if text == "" {
		return 150
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

// loaded sends the load to the double, or to the real ComfyUI where COMFYD_TEST_LOAD_REAL is set.
func (w *world) loaded() (url string, runs func() int) {
	w.t.Helper()
	if os.Getenv("COMFYD_TEST_LOAD_REAL") != "" {
		d := newDoor(w.t)
		w.gpu = d
		return d.URL, func() int { return len(d.posts()) }
	}
	s := fakecomfy.New(w.t)
	w.gpu = doubles{s}
	return s.URL, s.TotalRuns
}

// serveLoad starts comfyd as it runs under load: it writes down what is wrong, not every step.
func (w *world) serveLoad(url string) *process {
	w.every = 20
	return w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+url, "COMFYD_LOG_LEVEL=warn")
}

// submitAll submits jobs over 16 connections and returns their IDs, in the order of their numbers, and how long each
// submission took.
func (w *world) submitAll(n int) (ids []string, took []time.Duration) {
	w.t.Helper()
	ids, took = make([]string, n), make([]time.Duration, n)
	var next atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				e := w.send(job{graph: noise(i)})
				ids[i], took[i] = e.Job, e.Ended.Sub(e.Began)
				if e.Code != http.StatusAccepted {
					w.t.Errorf("submission %d: %d %v %v", i, e.Code, e.Body, e.Err)
					return
				}
			}
		})
	}
	all.Wait()
	require.False(w.t, w.t.Failed())
	return ids, took
}

func mib(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

// TestLoad submits many jobs at once against one worker: none is lost, none ends falsely, and memory stays flat.
func TestLoad(t *testing.T) {
	n := jobsAtOnce(t)
	w := newLoneWorld(t) // it measures memory
	url, runs := w.loaded()
	p := w.serveLoad(url)
	ids, _ := w.submitAll(20) // what is made once is not the load's
	for _, id := range ids {
		w.completes(id, 1)
	}
	ran, before := runs(), p.resident()
	var took []time.Duration
	var submitted, ended time.Duration
	most := p.most(func() {
		began := time.Now()
		ids, took = w.submitAll(n)
		submitted = time.Since(began)
		for _, id := range ids {
			w.completes(id, 1)
		}
		ended = time.Since(began)
	})
	require.Equal(t, n, runs()-ran, "no job ran twice")
	w.fired(true, fmt.Sprintf("%d jobs at once", n))
	slices.Sort(took)
	t.Logf(`

| figure | value |
| --- | --- |
| jobs submitted at once, one worker | %d |
| all submitted (16 connections) | %.1f s |
| one submission, p50 / p99 | %d / %d ms |
| all ended | %.1f s |
| memory before / most / after | %s / %s / %s |
| growth | %d MiB |
`, n, submitted.Seconds(), took[n/2].Milliseconds(), took[n*99/100].Milliseconds(), ended.Seconds(),
		mib(before), mib(most), mib(p.resident()), (most-before)>>20)
	require.LessOrEqual(t, most-before, int64(64<<20), "memory stays flat")
	w.check()
}

// position is the place of a job among those that ComfyUI was given, by its seed; -1: it was not given yet.
func position(s *fakecomfy.Server, seed int) int {
	want := fmt.Appendf(nil, `"seed":%d,`, seed)
	return slices.IndexFunc(s.Posted(), func(raw json.RawMessage) bool {
		return bytes.Contains(bytes.ReplaceAll(raw, []byte(" "), nil), want)
	})
}

// TestFairness: one tenant's many jobs do not keep another's one from its turn, and priorities hold before that.
func TestFairness(t *testing.T) {
	n := jobsAtOnce(t)
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	gate := s.Hold("ImageAddNoise")
	w.serveLoad(s.URL)
	ids, _ := w.submitAll(n)
	gate.Reached()
	const bobs, urgent = 1_000_001, 1_000_002
	submit := func(c *Client, j job) string { // while the jobs before it are still being placed
		e := w.sendBy(c, j)
		require.Equal(t, http.StatusAccepted, e.Code, "%v %s", e.Body, e.Err)
		return e.Job
	}
	b := submit(w.bob, job{graph: noise(bobs)})
	u := submit(w.alice, job{graph: noise(urgent), more: map[string]any{"priority": 1}})
	for _, id := range append(slices.Clone(ids), u) {
		w.in(id, "queued", "running")
	}
	w.in(b, "queued")
	given := len(s.Posted()) // one runs and one waits in ComfyUI
	gate.Open()
	w.ends(b, "COMPLETED")
	w.ends(u, "COMPLETED")
	w.fired(given < n/2, fmt.Sprintf("of %d jobs of one tenant %d were given to ComfyUI before; then came the urgent one as number %d, and the other tenant's as number %d",
		n, given, position(s, urgent)-given+1, position(s, bobs)-given+1))
	require.LessOrEqual(t, position(s, urgent)-given, 1, "an urgent job is next")
	require.LessOrEqual(t, position(s, bobs)-given, 3, "the other tenant's job is among the next")
	for _, id := range ids {
		w.ends(id, "COMPLETED") // on a machine under load one may be given twice, and its attempts say so
	}
	w.check()
}

// TestManyWaitForABackend: where no ComfyUI is ready, waiting jobs leave the worker room, and all run when there is one.
func TestManyWaitForABackend(t *testing.T) {
	n := jobsAtOnce(t)
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	p := w.serveLoad(s.URL)
	s.Stop()
	require.Eventually(t, func() bool {
		return w.alice.Do(context.Background(), "GET", "/readyz", "", nil, nil).Code == http.StatusServiceUnavailable
	}, 5*time.Minute, 50*time.Millisecond, "the backend is away")
	var ids []string
	var first, all time.Duration
	before := p.resident()
	most := p.most(func() {
		ids, _ = w.submitAll(n)
		for _, id := range ids {
			w.in(id, "warming")
		}
		e := w.sendBy(w.bob, job{graph: noise(1_000_001)})
		require.Equal(t, http.StatusAccepted, e.Code, "%v %s", e.Body, e.Err)
		w.fired(s.TotalRuns() == 0, fmt.Sprintf("%d jobs waited for a backend", n))
		s.Start()
		up := time.Now()
		w.ends(e.Job, "COMPLETED")
		first = time.Since(up)
		for _, id := range ids {
			w.ends(id, "COMPLETED")
		}
		all = time.Since(up)
	})
	t.Logf("%d jobs waited for a backend; another tenant's one ended %.1f s after it came, all %.1f s; memory %s, most %s",
		n, first.Seconds(), all.Seconds(), mib(before), mib(most))
	w.check()
}

// in waits until an open job is in one of the phases.
func (w *world) in(id string, phases ...string) {
	w.t.Helper()
	w.phase(id, func(e *Event) bool {
		phase, _ := e.Body["phase"].(string)
		return slices.Contains(phases, phase)
	}, "it is "+strings.Join(phases, " or "))
}
