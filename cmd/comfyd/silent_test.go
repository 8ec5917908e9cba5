package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/internal/fakecomfy"
	"github.com/comfyd/comfyd/internal/logs"
)

// TestTemporalFallsSilent stops the process that holds Temporal (SIGSTOP) while an API of its own takes submissions: no
// answer is untrue. Without a key nothing was accepted, and what Temporal took all the same is canceled; with one, the
// same key finds the one job.
func TestTemporalFallsSilent(t *testing.T) {
	s := fakecomfy.New(t)
	gate := s.Hold("ImageAddNoise") // what is accepted stays open
	store := "COMFYD_STORE_URL=file://" + t.TempDir()
	holder := prepare(t, "COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL, store)
	holder.start()
	_, state, err := holder.get("/readyz")
	require.NoError(t, err)
	require.Equal(t, "ok", state["status"])

	p := prepare(t, "TEMPORAL_ADDRESS="+holder.variable("COMFYD_TEMPORAL_LISTEN"), store, "COMFYD_SIGNING_KEY=0123456789abcdef0123456789abcdef")
	p.role = "api"
	p.start()
	first := p.submit(noise(1))
	pause := func(sig syscall.Signal) { require.NoError(t, holder.cmd.Process.Signal(sig)) }

	pause(syscall.SIGSTOP)
	began := time.Now()
	type result struct {
		code int
		body map[string]any
	}
	answers := make(chan result, 4)
	for range 4 {
		go func() {
			code, body, err := p.request("POST", "/submit_workflow", map[string]any{"workflow": noise(2)})
			if err != nil {
				body = map[string]any{"error": err.Error()}
			}
			answers <- result{code, body}
		}()
	}
	keyed, keyedBody, err := p.request("POST", "/submit_workflow", map[string]any{"workflow": noise(3)}, "Idempotency-Key", "k")
	require.NoError(t, err)
	require.Equal(t, 503, keyed, "%v", keyedBody)
	for range 4 {
		a := <-answers
		require.Equal(t, http.StatusServiceUnavailable, a.code, "%v", a.body)
		require.Equal(t, "unavailable", a.body["code"])
	}
	t.Logf("answered %.1f s after Temporal fell silent", time.Since(began).Seconds())
	pause(syscall.SIGCONT)

	var id string
	require.Eventually(t, func() bool {
		code, body, err := p.request("POST", "/submit_workflow", map[string]any{"workflow": noise(3)}, "Idempotency-Key", "k")
		require.NoError(t, err)
		id, _ = body["id"].(string)
		return code == 202
	}, time.Minute, 100*time.Millisecond, "the same key finds the job, or starts it")

	// Temporal held the starts in its socket, and took them when it woke up. Those that nobody knows end by themselves.
	require.Eventually(t, func() bool {
		open, err := openJobs(holder)
		require.NoError(t, err)
		return len(open) == 2 && open[first] && open[id]
	}, time.Minute, 200*time.Millisecond, "only the jobs that a client knows are open")
	said := p.out.String()
	require.Contains(t, said, "Temporal did not say whether it has taken this job", "the fault has fired")
	t.Logf("%d starts had no answer; %d of them had happened", strings.Count(said, "Temporal did not say"), strings.Count(said, "had started after all"))
	gate.Open()
	for _, known := range []string{first, id} {
		status := p.finish(known)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		require.EqualValues(t, 1, status["attempts"])
	}
	p.signal(syscall.SIGTERM)
	holder.signal(syscall.SIGTERM)
}

// openJobs are the IDs of the workflows that are open, as Temporal lists them.
func openJobs(p *comfyd) (map[string]bool, error) {
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	ctx, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	c, err := client.DialContext(ctx, client.Options{HostPort: p.variable("COMFYD_TEMPORAL_LISTEN"), Logger: logs.Temporal(silent)})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	list, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: "ExecutionStatus = 'Running'"})
	if err != nil {
		return nil, err
	}
	open := map[string]bool{}
	for _, e := range list.GetExecutions() {
		open[e.GetExecution().GetWorkflowId()] = true
	}
	return open, nil
}
