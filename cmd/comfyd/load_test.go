package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

const othersSecret = "another-secret-for-the-tests"

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

// loaded is where the load goes: the double, or the real ComfyUI where COMFYD_TEST_LOAD_REAL is set.
func loaded(t *testing.T) (url string, runs func() int) {
	t.Helper()
	if os.Getenv("COMFYD_TEST_LOAD_REAL") != "" {
		c := count(t)
		return c.URL, c.runs
	}
	s := fakecomfy.New(t)
	return s.URL, s.TotalRuns
}

// submitAll submits jobs over 16 connections and returns their IDs, in the order of their numbers, and how long each
// submission took.
func (p *comfyd) submitAll(n int) (ids []string, took []time.Duration) {
	p.t.Helper()
	ids, took = make([]string, n), make([]time.Duration, n)
	var next atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				began := time.Now()
				code, body, err := p.request("POST", "/submit_workflow", map[string]any{"workflow": noise(i)})
				took[i] = time.Since(began)
				if err != nil || code != 202 {
					p.t.Errorf("submission %d: %d %v %v", i, code, body, err)
					return
				}
				ids[i] = body["id"].(string)
			}
		})
	}
	all.Wait()
	require.False(p.t, p.t.Failed())
	return ids, took
}

// memory samples a process's resident memory until it is stopped.
type memory struct {
	t     *testing.T
	self  *process.Process
	start uint64
	most  atomic.Uint64
	stop  chan struct{}
	done  sync.WaitGroup
}

func watch(t *testing.T, pid int) *memory {
	t.Helper()
	self, err := process.NewProcess(int32(pid))
	require.NoError(t, err)
	m := &memory{t: t, self: self, stop: make(chan struct{})}
	m.start = m.now()
	m.done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-m.stop:
				return
			case <-tick.C:
				m.most.Store(max(m.most.Load(), m.now()))
			}
		}
	})
	return m
}

func (m *memory) now() uint64 {
	info, err := m.self.MemoryInfo()
	if err != nil {
		return 0
	}
	return info.RSS
}

func (m *memory) end() { close(m.stop); m.done.Wait() }

func mib(n uint64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

// TestLoad submits many jobs at once against one worker: none is lost, none ends falsely, and memory stays flat.
func TestLoad(t *testing.T) {
	n := jobsAtOnce(t)
	url, runs := loaded(t)
	p := prepare(t, "COMFYD_BACKEND=url", "COMFYUI_URLS="+url)
	p.start()
	ids, _ := p.submitAll(20) // what is made once is not the load's
	for _, id := range ids {
		p.finish(id)
	}
	before := runs()
	m := watch(t, p.cmd.Process.Pid)
	began := time.Now()
	ids, took := p.submitAll(n)
	submitted := time.Since(began)
	attempts := 0.0
	for _, id := range ids {
		status := p.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		attempts += status["attempts"].(float64)
	}
	ended := time.Since(began)
	m.end()
	require.EqualValues(t, n, attempts, "no job ran twice")
	require.Equal(t, n, runs()-before)
	slices.Sort(took)
	grown := int64(m.most.Load()) - int64(m.start)
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
		mib(m.start), mib(m.most.Load()), mib(m.now()), grown>>20)
	require.LessOrEqual(t, grown, int64(64<<20), "memory stays flat")
	p.signal(syscall.SIGTERM)
}

// position is the place of a job among those that ComfyUI was given, by its seed; -1: it was not given yet.
func position(s *fakecomfy.Server, seed int) int {
	want := fmt.Appendf(nil, `"seed":%d,`, seed)
	for i, raw := range s.Posted() {
		if bytes.Contains(bytes.ReplaceAll(raw, []byte(" "), nil), want) {
			return i
		}
	}
	return -1
}

// TestFairness: one tenant's many jobs do not keep another's one from its turn, and priorities hold before that.
func TestFairness(t *testing.T) {
	n := jobsAtOnce(t)
	s := fakecomfy.New(t)
	gate := s.Hold("ImageAddNoise")
	p := prepare(t, "COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL, "COMFYD_API_KEYS=alice:"+secret+",bob:"+othersSecret)
	p.start()
	ids, _ := p.submitAll(n)
	gate.Reached()
	bob := *p
	bob.key = othersSecret
	const bobs, urgent = 1_000_001, 1_000_002
	b := bob.submit(noise(bobs)) // while the jobs before it are still being placed
	code, body, err := p.request("POST", "/submit_workflow", map[string]any{"workflow": noise(urgent), "priority": 1})
	require.NoError(t, err)
	require.Equal(t, 202, code, "%v", body)
	u := body["id"].(string)
	for _, id := range append(slices.Clone(ids), u) {
		p.phase(id, "queued", "running")
	}
	bob.phase(b, "queued")
	given := len(s.Posted()) // one runs and one waits in ComfyUI
	gate.Open()
	bob.finish(b)
	p.finish(u)
	t.Logf("of %d jobs of one tenant %d were given to ComfyUI before; then came the urgent one as number %d, and the other tenant's as number %d",
		n, given, position(s, urgent)-given+1, position(s, bobs)-given+1)
	require.LessOrEqual(t, position(s, urgent)-given, 1, "an urgent job is next")
	require.LessOrEqual(t, position(s, bobs)-given, 3, "the other tenant's job is among the next")
	for _, id := range ids {
		require.Equal(t, "COMPLETED", p.finish(id)["status"])
	}
	p.signal(syscall.SIGTERM)
}

// TestManyWaitForABackend: where no ComfyUI is ready, waiting jobs leave the worker room, and all run when there is one.
func TestManyWaitForABackend(t *testing.T) {
	n := jobsAtOnce(t)
	s := fakecomfy.New(t)
	p := prepare(t, "COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL, "COMFYD_API_KEYS=alice:"+secret+",bob:"+othersSecret)
	p.start()
	s.Stop()
	require.Eventually(t, func() bool {
		code, _, err := p.get("/readyz")
		return err == nil && code == 503
	}, time.Minute, 50*time.Millisecond, "the backend is away")
	m := watch(t, p.cmd.Process.Pid)
	ids, _ := p.submitAll(n)
	for _, id := range ids {
		p.phase(id, "warming")
	}
	bob := *p
	bob.key = othersSecret
	b := bob.submit(noise(1_000_001))
	s.Start()
	up := time.Now()
	require.Equal(t, "COMPLETED", bob.finish(b)["status"])
	first := time.Since(up)
	for _, id := range ids {
		require.Equal(t, "COMPLETED", p.finish(id)["status"])
	}
	m.end()
	t.Logf("%d jobs waited for a backend; another tenant's one ended %.1f s after it came, all %.1f s; memory %s, most %s",
		n, first.Seconds(), time.Since(up).Seconds(), mib(m.start), mib(m.most.Load()))
	p.signal(syscall.SIGTERM)
}

// phase waits until a job is in one of the phases.
func (p *comfyd) phase(id string, phases ...string) {
	p.t.Helper()
	var last any
	require.Eventually(p.t, func() bool {
		_, body, err := p.get("/status/" + id)
		last = body
		phase, _ := body["phase"].(string)
		return err == nil && slices.Contains(phases, phase)
	}, time.Minute, 20*time.Millisecond, "%s is %s: %v", id, strings.Join(phases, " or "), last)
}
