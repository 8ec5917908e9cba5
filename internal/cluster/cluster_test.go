package cluster_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/comfyd/comfyd/internal/cluster"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// long says whether the whole of it is asked for: make faults.
func long() bool { return os.Getenv("COMFYD_TEST_FAULTS") != "" }

func testdata(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(cluster.Root(), "testdata", name))
	require.NoError(t, err)
	return raw
}

// TestCluster runs the production shape on two doubles of ComfyUI and kills one process after the other under load.
func TestCluster(t *testing.T) {
	gpus := []*fakecomfy.Server{fakecomfy.New(t), fakecomfy.New(t)}
	for _, g := range gpus {
		g.Step(50 * time.Millisecond)
	}
	began := time.Now()
	c := cluster.New(t, "COMFYUI_URLS="+gpus[0].URL+","+gpus[1].URL)
	t.Logf("up after %s", time.Since(began).Round(time.Millisecond))
	runs := func() int { return gpus[0].TotalRuns() + gpus[1].TotalRuns() }

	t.Run("setup again changes nothing", func(t *testing.T) {
		said := c.Setup()
		require.Contains(t, said, "namespace comfyd is there\n")
		require.Contains(t, said, "can be used")
		require.NotContains(t, said, "added")
	})
	t.Run("setup and health", func(t *testing.T) { setUp(t, c) })
	t.Run("any replica", func(t *testing.T) { anyReplica(t, c) })
	t.Run("fairness", func(t *testing.T) { fair(t, c, gpus) })
	for _, p := range []*cluster.Process{c.Workers[0], c.APIs[0], c.S3, c.Temporal, c.Postgres} {
		noticed := p != c.Workers[0] && p != c.S3 // the other worker goes on; what is made waits for the store
		t.Run("kill "+p.Name, func(t *testing.T) { killed(t, c, p, noticed, runs) })
	}
	t.Run("all lost after a backup", func(t *testing.T) { restored(t, c, gpus) })
	t.Run("rolling upgrade", func(t *testing.T) { upgraded(t, c, runs) })
	t.Run("load", func(t *testing.T) { loaded(t, c, runs) })
}

// setUp tries `comfyd temporal setup` and `comfyd health` on namespaces that are not as they should be.
func setUp(t *testing.T, c *cluster.Cluster) {
	ctx, done := context.WithTimeout(t.Context(), 10*time.Minute)
	defer done()
	fails := func(want string, service string, args []string, vars ...string) {
		t.Helper()
		said, err := c.Try(ctx, service, args, vars...)
		require.Error(t, err)
		require.Contains(t, said, want)
	}
	works := func(want string, args []string, vars ...string) {
		t.Helper()
		said, err := c.Try(ctx, "setup", args, vars...)
		require.NoError(t, err, said)
		require.Contains(t, said, want)
	}
	namespaces, err := client.NewNamespaceClient(client.Options{HostPort: c.TemporalAddress})
	require.NoError(t, err)
	defer namespaces.Close()
	require.NoError(t, namespaces.Register(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: "bare", WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	}))

	setup := []string{"temporal", "setup"}
	for _, role := range []string{"api", "worker"} {
		fails("comfyd temporal setup", role+"-1", []string{role}, "TEMPORAL_NAMESPACE=nowhere", "COMFYD_LISTEN=127.0.0.1:0", "COMFYD_METRICS_LISTEN=127.0.0.1:0")
		require.Eventually(t, func() bool { // the server learns of a namespace within seconds
			said, err := c.Try(ctx, role+"-1", []string{role}, "TEMPORAL_NAMESPACE=bare", "COMFYD_LISTEN=127.0.0.1:0", "COMFYD_METRICS_LISTEN=127.0.0.1:0")
			return err != nil && strings.Contains(said, "lacks comfyd's search attributes; add them once with `comfyd temporal setup`")
		}, 2*time.Minute, 100*time.Millisecond)
	}
	works("are added: ComfyAttempts, ComfyBackend", setup, "TEMPORAL_NAMESPACE=bare", "COMFYD_RETENTION=1d")
	works("a retention of 24h0m0s; COMFYD_RETENTION is 72h0m0s (--update-retention", setup, "TEMPORAL_NAMESPACE=bare", "COMFYD_RETENTION=3d")
	works("its retention is 72h0m0s now, and was 24h0m0s", append(setup, "--update-retention"), "TEMPORAL_NAMESPACE=bare", "COMFYD_RETENTION=3d")
	works("namespace bare is there\n", setup, "TEMPORAL_NAMESPACE=bare", "COMFYD_RETENTION=3d")
	works("the Nexus endpoint comfyd leads to the task queue comfyui of the namespace", setup, "TEMPORAL_NAMESPACE=bare", "COMFYD_RETENTION=3d")
	works("Nexus endpoint bare is made", append(setup, "--nexus-endpoint", "bare"), "TEMPORAL_NAMESPACE=bare", "COMFYD_RETENTION=3d")
	works("Nexus endpoint bare is there", append(setup, "--nexus-endpoint", "bare"), "TEMPORAL_NAMESPACE=bare", "COMFYD_RETENTION=3d")
	fails("TEMPORAL_ADDRESS is not set", "setup", setup, "TEMPORAL_ADDRESS=")
	fails("COMFYD_RETENTION", "setup", setup, "COMFYD_RETENTION=0s")

	health := []string{"health", "--worker"}
	fails("no worker of host", "worker-1", health, "TEMPORAL_NAMESPACE=bare")
	fails("connecting to Temporal", "worker-1", health, "TEMPORAL_ADDRESS=127.0.0.1:1")
	fails("comfyd does not answer", "api-1", []string{"health"}, "COMFYD_LISTEN=127.0.0.1:1")
	said, err := c.Try(ctx, "api-1", []string{"health", "--ready"})
	require.NoError(t, err, said)
	require.Contains(t, said, `"status":"ok"`)
}

// anyReplica: what one replica accepted, the other one answers, at once, and repeats under the same key.
func anyReplica(t *testing.T, c *cluster.Cluster) {
	u := newUsers(t, c)
	first, second := u.submit(noise(7), "once"), u.submit(noise(7), "once")
	require.Empty(t, u.wrong)
	require.Equal(t, first.id, second.id, "one key, one job, whoever is asked")
	for range 4 {
		a, err := u.call("GET", "/status/"+first.id, nil, "")
		require.NoError(t, err)
		require.Contains(t, []int{200, 202}, a.code)
	}
	end := u.follow(first)
	require.Equal(t, "COMPLETED", end["status"])
	require.Regexp(t, "^url-.", end["backend"], "ComfyUIs on a loopback address are this machine's own pool")
	a, err := u.call("GET", "/status/00000000-0000-4000-8000-000000000000", nil, "")
	require.NoError(t, err)
	require.Equal(t, 404, a.code)
}

// outage is how long a process stays away whose absence no client notices.
const outage = 3 * time.Second

// killed is kill -9 of one process under load, and its start again when a client has noticed, or after a while.
func killed(t *testing.T, c *cluster.Cluster, p *cluster.Process, noticed bool, runs func() int) {
	cycles := 1
	if long() {
		cycles = 3
	}
	for range cycles {
		before := runs()
		u := newUsers(t, c)
		l := u.load(8, func(n int) map[string]any {
			if n%4 == 0 {
				return steps(t, 2048) // 3 s: some are in mid-run whenever the fault comes
			}
			return noise(int(time.Now().UnixNano() % 1e9))
		})
		await(t, "jobs end", func() bool { return u.ended() >= 8 })
		pid := p.PID()
		at := time.Now()
		p.Kill()
		require.Zero(t, p.PID(), "the fault has fired: %d is gone", pid)
		if noticed {
			await(t, "a client is told to come again", func() bool { return u.sentAway() > 0 })
		} else {
			<-time.After(outage)
		}
		back := time.Now()
		p.Start()
		up := time.Since(back)
		more := u.ended() + 8
		await(t, "jobs end after the fault", func() bool { return u.ended() >= more })
		l.end()
		first, last, open := u.since(at)
		require.Positive(t, open, "jobs were open when the fault came")
		round := func(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
		t.Logf("RECOVERY production shape, %s killed: started again after %s, well after another %s; of %d open jobs the first ended %s after the kill, the last %s",
			p.Name, round(back.Sub(at)), round(up), open, round(first), round(last))
		u.check(runs() - before)
	}
}

// upgraded replaces one process after the other by a newer version, and back, under load.
func upgraded(t *testing.T, c *cluster.Cluster, runs func() int) {
	next := cluster.Build(t, "next")
	before := runs()
	u := newUsers(t, c)
	l := u.load(8, func(n int) map[string]any {
		if n%4 == 0 {
			return steps(t, 2048)
		}
		return noise(int(time.Now().UnixNano() % 1e9))
	})
	await(t, "jobs end", func() bool { return u.ended() >= 4 })
	for _, p := range slices.Concat(c.Workers[:], c.APIs[:]) {
		at := time.Now()
		stop := c.Replace(p, next)
		t.Logf("%s: stopped in %s, well again after %s", p.Name, stop, time.Since(at).Round(10*time.Millisecond))
		more := u.ended() + 4
		await(t, "jobs end with two versions at once", func() bool { return u.ended() >= more })
	}
	l.end()
	u.check(runs() - before)
	for i := range c.URLs {
		u.turn.Store(int64(i))
		a, err := u.call("GET", "/healthz", nil, "")
		require.NoError(t, err)
		require.Equal(t, "next", a.body["version"])
	}
	for _, r := range u.jobs {
		require.Equal(t, 1, r.attempts, "a graceful stop costs no run: job %s", r.id)
	}
}

// loaded sends many jobs at once and measures.
func loaded(t *testing.T, c *cluster.Cluster, runs func() int) {
	n, atOnce := 100, 16
	if long() {
		n = 500
	}
	before := runs()
	u := newUsers(t, c)
	memory := func() string {
		s := ""
		for _, p := range []*cluster.Process{c.Postgres, c.Temporal, c.S3, c.APIs[0], c.APIs[1], c.Workers[0], c.Workers[1]} {
			s += fmt.Sprintf(" %s %d MiB", p.Name, p.Memory()>>20)
		}
		return s
	}
	t.Logf("memory before:%s", memory())
	began := time.Now()
	var all sync.WaitGroup
	work := make(chan int)
	for range atOnce {
		all.Go(func() {
			for i := range work {
				if r := u.submit(noise(1e9+i), fmt.Sprintf("load-%d-%d", began.UnixNano(), i)); r != nil {
					u.follow(r)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	all.Wait()
	took := time.Since(began)
	t.Logf("%d jobs at %d connections in %s: %.1f a second; memory after:%s", n, atOnce, took.Round(time.Millisecond), float64(n)/took.Seconds(), memory())
	u.check(runs() - before)
}

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, patience, 20*time.Millisecond, what)
}
