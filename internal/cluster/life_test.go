package cluster_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/cluster"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// site is a cluster on one double of ComfyUI, with Temporal at hand.
type site struct {
	*cluster.Cluster
	t        *testing.T
	gpu      *fakecomfy.Server
	users    *users
	temporal client.Client
	seed     int
}

func newSite(t *testing.T, vars ...string) *site {
	t.Helper()
	s := &site{t: t, gpu: fakecomfy.New(t)}
	s.Cluster = cluster.New(t, append(vars, "COMFYUI_URLS="+s.gpu.URL)...)
	s.users = newUsers(t, s.Cluster)
	var err error
	s.temporal, err = client.Dial(client.Options{HostPort: s.TemporalAddress, Namespace: s.Namespace})
	require.NoError(t, err)
	t.Cleanup(s.temporal.Close)
	return s
}

// submit sends a job of its own.
func (s *site) submit() *record {
	s.t.Helper()
	s.seed++
	r := s.users.submit(noise(s.seed), fmt.Sprint(s.t.Name(), s.seed))
	require.NotNil(s.t, r, s.users.wrong)
	return r
}

// ends follows jobs to their end, which must be a good one, each after one attempt.
func (s *site) ends(jobs ...*record) {
	s.t.Helper()
	for _, r := range jobs {
		s.users.follow(r)
		require.Equal(s.t, "COMPLETED", r.status)
		require.Equal(s.t, 1, r.attempts)
	}
	require.Empty(s.t, s.users.wrong)
}

func (s *site) describe(r *record) *workflowservice.DescribeWorkflowExecutionResponse {
	s.t.Helper()
	d, err := s.temporal.DescribeWorkflowExecution(s.t.Context(), r.id, "")
	require.NoError(s.t, err)
	return d
}

// prompt is the activity that carries the job's prompt; nil while there is none.
func (s *site) prompt(r *record) *workflow.PendingActivityInfo {
	s.t.Helper()
	for _, a := range s.describe(r).GetPendingActivities() {
		if a.GetActivityType().GetName() == comfy.ActivityPrompt {
			return a
		}
	}
	return nil
}

// carrier waits until a worker other than that one carries the job's prompt.
func (s *site) carrier(r *record, not *cluster.Process) (carrier *cluster.Process, attempt int32) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		a := s.prompt(r)
		if a.GetState() != enums.PENDING_ACTIVITY_STATE_STARTED {
			return false
		}
		for _, w := range s.Workers {
			if w != not && strings.HasPrefix(a.GetLastWorkerIdentity(), fmt.Sprintf("%d@", w.PID())) {
				carrier, attempt = w, a.GetAttempt()
				return true
			}
		}
		return false
	}, patience, 5*time.Millisecond, "a worker carries the prompt")
	return carrier, attempt
}

// TestWorkersStop: SIGTERM of a worker costs no job anything. Where nothing is said, another worker goes on with its prompts
// at once; with COMFYD_DRAIN_TIMEOUT it carries them to their end itself.
func TestWorkersStop(t *testing.T) {
	s := newSite(t)
	t.Run("at once", s.letsGo)
	t.Run("drained", s.drains)
	t.Run("an api", s.apiStops)
}

func (s *site) letsGo(t *testing.T) {
	s.t = t
	cycles := 3
	if long() {
		cycles = 20
	}
	gate := s.gpu.Hold("ImageAddNoise")
	running := s.submit()
	gate.Reached()
	carrier, _ := s.carrier(running, nil)
	for range cycles {
		began := time.Now()
		stopped := carrier.Stop()
		next, attempt := s.carrier(running, carrier)
		on := time.Since(began)
		t.Logf("stopped in %s; another carries the prompt %s after SIGTERM, attempt %d of the activity", stopped.Round(time.Millisecond), on.Round(time.Millisecond), attempt)
		require.Nil(t, s.prompt(running).GetLastFailure().GetTimeoutFailureInfo(), "nobody has waited for a heartbeat's timeout")
		carrier.Start()
		carrier = next
	}
	gate.Open()
	s.ends(running)
	require.Equal(t, 1, s.gpu.TotalRuns())
}

func (s *site) drains(t *testing.T) {
	s.t = t
	before := s.gpu.TotalRuns()
	for _, w := range s.Workers {
		w.Stop()
		w.Set("COMFYD_DRAIN_TIMEOUT=1m")
		w.Start()
	}
	gate := s.gpu.Hold("ImageAddNoise")
	running := s.submit()
	gate.Reached()
	carrier, attempt := s.carrier(running, nil)
	carrier.Signal(syscall.SIGTERM)
	await(t, "it says so", func() bool { return strings.Contains(carrier.Log(), "no more jobs are taken") })
	waiting := s.submit() // there is room for one more in ComfyUI, but not through this worker
	other, _ := s.carrier(waiting, nil)
	require.NotEqual(t, carrier.Name, other.Name)
	require.Never(t, carrier.Gone, time.Second, 50*time.Millisecond, "it stays while its prompt runs")
	require.Equal(t, attempt, s.prompt(running).GetAttempt(), "the same attempt carries it still")
	gate.Open()
	s.ends(running, waiting)
	began := time.Now()
	await(t, "it goes when its job has ended", carrier.Gone)
	t.Logf("a drained worker is gone %s after its last job's end", time.Since(began).Round(time.Millisecond))
	carrier.Reap()
	carrier.Start()

	gate = s.gpu.Hold("ImageAddNoise")
	running = s.submit()
	gate.Reached()
	carrier, _ = s.carrier(running, nil)
	carrier.Signal(syscall.SIGTERM)
	await(t, "it drains", func() bool { return strings.Count(carrier.Log(), "no more jobs are taken") > 0 })
	require.Never(t, carrier.Gone, 500*time.Millisecond, 50*time.Millisecond)
	began = time.Now()
	carrier.Signal(syscall.SIGTERM)
	s.carrier(running, carrier)
	t.Logf("after a second SIGTERM another carries the prompt within %s", time.Since(began).Round(time.Millisecond))
	require.Nil(t, s.prompt(running).GetLastFailure().GetTimeoutFailureInfo(), "nobody has waited for a heartbeat's timeout")
	gate.Open()
	s.ends(running)
	await(t, "it is gone", carrier.Gone)
	carrier.Reap()
	carrier.Start()
	require.Equal(t, before+3, s.gpu.TotalRuns())
}

// apiStops: what an api has begun to answer it answers; who waits for an end is sent away with RUNNING.
func (s *site) apiStops(t *testing.T) {
	s.t = t
	gate := s.gpu.Hold("ImageAddNoise")
	running := s.submit()
	gate.Reached()
	address := strings.TrimPrefix(s.URLs[0], "http://")
	send := func(head string) net.Conn {
		c, err := net.Dial("tcp", address)
		require.NoError(t, err)
		_, err = fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n", head, address, s.Key)
		require.NoError(t, err)
		return c
	}
	answer := func(c net.Conn) string {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(2*time.Minute)))
		raw := make([]byte, 4096)
		n, err := c.Read(raw)
		require.NoError(t, err)
		return string(raw[:n])
	}
	poll := send("GET /status/" + running.id + "?wait=60")
	defer poll.Close()
	fmt.Fprint(poll, "\r\n")
	body := fmt.Sprintf(`{"workflow":%s}`, noise(1 << 20)["workflow"])
	half := send("POST /submit_workflow")
	defer half.Close()
	fmt.Fprintf(half, "Idempotency-Key: half\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:len(body)/2])
	<-time.After(3 * time.Second) // both are in the handlers
	began := time.Now()
	s.APIs[0].Signal(syscall.SIGTERM)
	require.Contains(t, answer(poll), "202 Accepted")
	t.Logf("a long poll is answered %s after SIGTERM", time.Since(began).Round(time.Millisecond))
	await(t, "it listens no more", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	require.False(t, s.APIs[0].Gone(), "it waits for the request that is half here")
	fmt.Fprint(half, body[len(body)/2:])
	require.Contains(t, answer(half), "202 Accepted")
	await(t, "it is gone", s.APIs[0].Gone)
	s.APIs[0].Reap()
	s.APIs[0].Start()
	gate.Open()
	again := s.users.submit(map[string]any{"workflow": noise(1 << 20)["workflow"]}, "half")
	require.NotNil(t, again)
	s.ends(running, again)
}

// ready tells what the first API says of itself.
func (s *site) ready() int {
	s.t.Helper()
	ctx, done := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URLs[0]+"/readyz", nil)
	require.NoError(s.t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	require.NoError(s.t, res.Body.Close())
	return res.StatusCode
}
