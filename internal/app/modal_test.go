package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

// startModal runs a whole comfyd on a fake Modal and waits until it has the catalogue.
func startModal(t *testing.T, vars map[string]string, change ...func(*fakemodal.Options)) (*fakemodal.Server, *api) {
	t.Helper()
	m := fakemodal.Product(t, change...)
	for k, v := range m.Env() {
		t.Setenv(k, v)
	}
	all := map[string]string{"COMFYD_BACKEND": "modal"}
	for k, v := range vars {
		all[k] = v
	}
	a := start(t, all)
	a.ready()
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(m.Calls(), func(c fakemodal.Call) bool { return c.Function == "catalog" && c.State == fakemodal.Done })
	}, 2*time.Minute, 100*time.Millisecond, "the catalogue was not asked for")
	unknown := map[string]any{"workflow": json.RawMessage(`{"1":{"class_type":"NoSuchNode","inputs":{}}}`)}
	require.Eventually(t, func() bool { return a.do("POST", "/submit_workflow", unknown).code == 400 }, 2*time.Minute, 500*time.Millisecond, "the catalogue is not known")
	return m, a
}

// TestCorpusAtModal sends every workflow of testdata over HTTP to the product's app at Modal.
func TestCorpusAtModal(t *testing.T) {
	m, a := startModal(t, nil)
	corpus(t, a)
	for _, c := range m.Calls() {
		if c.Method == "run" {
			require.LessOrEqual(t, len(c.Attempts), 1, "one call, one run: %+v", c)
		}
	}
}

// TestJobsAtModal: what holds for a job on any backend holds there.
func TestJobsAtModal(t *testing.T) {
	_, a := startModal(t, map[string]string{"COMFYD_MODAL_GPUS": "L40S,H100"})
	all := jobs()
	all["the job's GPU"] = jobsGPU
	a.each(t, all)
}

func jobsGPU(a *api) {
	r := a.do("POST", "/submit_workflow", map[string]any{"workflow": graph(21, "gpu"), "gpu": "B200"})
	require.Equal(a.t, 400, r.code)
	require.Contains(a.t, r.body["error"], "H100, L40S", "it says what there is")
	status := a.finish(a.submit(map[string]any{"workflow": graph(22, "gpu"), "gpu": "h100"}))
	require.Equal(a.t, "COMPLETED", status["status"], "%v", status)
	require.EqualValues(a.t, 1, status["attempts"])
	require.Greater(a.t, status["metrics"].(map[string]any)["cold_start_ms"], 1000.0, "an H100 is a container of its own")
}

// TestMisbehavioursOfModal: what a client sees of each.
func TestMisbehavioursOfModal(t *testing.T) {
	m, a := startModal(t, map[string]string{"COMFYD_RUN_TIMEOUT": "10m"}, func(o *fakemodal.Options) { o.PreemptGrace = 2 * time.Second })
	start := func(t *testing.T, workflow json.RawMessage) (id, call string) {
		before := map[string]bool{}
		for _, c := range m.Calls() {
			before[c.ID] = true
		}
		id = a.submit(map[string]any{"workflow": workflow})
		require.Eventually(t, func() bool {
			p, _ := a.do("GET", "/status/"+id, nil).body["progress"].(map[string]any)
			return p != nil && p["value"].(float64) > 0
		}, 2*time.Minute, 100*time.Millisecond, "the job does not run")
		for _, c := range m.Calls() {
			if !before[c.ID] && c.Method == "run" {
				return id, c.ID
			}
		}
		t.Fatal("no call was made")
		return "", ""
	}
	running := func(t *testing.T) (id, call string) { return start(t, slow(t)) }
	t.Run("unreachable for a while", func(t *testing.T) {
		id, _ := running(t)
		away := m.Unavailable()
		ctx, done := context.WithTimeout(t.Context(), time.Minute)
		defer done()
		require.NoError(t, away.Wait(ctx))
		require.Equal(t, "RUNNING", a.do("GET", "/status/"+id, nil).body["status"])
		away.Clear()
		status := a.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		require.EqualValues(t, 1, status["attempts"])
	})
	t.Run("throttled", func(t *testing.T) {
		f := m.Throttle(3, 0)
		status := a.finish(a.submit(map[string]any{"workflow": graph(31, "throttled")}))
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
		require.Equal(t, 3, f.Fired())
	})
	t.Run("token refused", func(t *testing.T) {
		f := m.RefuseToken()
		id := a.submit(map[string]any{"workflow": graph(32, "token")})
		ctx, done := context.WithTimeout(t.Context(), time.Minute)
		defer done()
		require.NoError(t, f.Wait(ctx))
		require.Eventually(t, func() bool { return a.do("GET", "/readyz", nil).code == 503 }, 2*time.Minute, 200*time.Millisecond)
		f.Clear()
		require.Equal(t, "COMPLETED", a.finish(id)["status"], "the job has waited")
	})
	for name, lose := range map[string]func(call string) error{"result expired": m.Expire, "result's bytes lost": m.LoseBlob} {
		t.Run(name+" before anybody had it", func(t *testing.T) {
			id, call := running(t)
			away := m.Unavailable()
			ctx, done := context.WithTimeout(t.Context(), 2*time.Minute)
			defer done()
			_, err := m.WaitState(ctx, call, fakemodal.Done)
			require.NoError(t, err)
			require.NoError(t, lose(call))
			away.Clear()
			status := a.finish(id)
			require.Equal(t, "COMPLETED", status["status"], "it is run again: %v", status)
			require.EqualValues(t, 2, status["attempts"])
		})
	}
	t.Run("Modal's own limit of time", func(t *testing.T) {
		id, call := running(t)
		require.NoError(t, m.TimeOut(call))
		status := a.finish(id)
		require.Equal(t, "timeout", status["code"], "%v", status)
		require.Contains(t, status["error"], "COMFYD_MODAL_TIMEOUT")
		require.EqualValues(t, 1, status["attempts"], "another run would meet the same limit")
	})
	t.Run("a cancel that Modal does not take at first", func(t *testing.T) {
		id, call := start(t, bytes.ReplaceAll(slow(t), []byte("2304"), []byte("9216")))
		deaf := m.Throttle(0, 0, "FunctionCallCancel")
		require.Equal(t, 202, a.do("POST", "/cancel/"+id, nil).code)
		require.Eventually(t, func() bool { return deaf.Fired() > 0 }, 2*time.Minute, 50*time.Millisecond)
		require.Never(t, func() bool { return a.do("GET", "/status/"+id, nil).code == 200 }, 18*time.Second, time.Second, "it is not called canceled while it runs")
		deaf.Clear()
		require.Equal(t, "canceled", a.finish(id)["code"])
		c, err := m.Call(call)
		require.NoError(t, err)
		require.Equal(t, "terminated", c.Outcome)
	})
	t.Run("cancelled in Modal's queue", func(t *testing.T) {
		first, call := start(t, bytes.ReplaceAll(slow(t), []byte("2304"), []byte("9216"))) // a minute, if it is let
		waiting := a.submit(map[string]any{"workflow": graph(34, "waits at Modal")})
		require.Eventually(t, func() bool { return queued(m) == 1 }, 2*time.Minute, 50*time.Millisecond)
		require.Equal(t, 202, a.do("POST", "/cancel/"+waiting, nil).code)
		require.Equal(t, "canceled", a.finish(waiting)["code"])
		require.Equal(t, 0, queued(m))
		require.Equal(t, 202, a.do("POST", "/cancel/"+first, nil).code)
		require.Equal(t, "canceled", a.finish(first)["code"])
		c, err := m.Call(call)
		require.NoError(t, err)
		require.Equal(t, "terminated", c.Outcome, "it costs nothing any more")
		require.Equal(t, "COMPLETED", a.finish(a.submit(map[string]any{"workflow": graph(35, "after")}))["status"], "the next job runs clean")
	})
}

// queued is how many prompts wait at Modal.
func queued(m *fakemodal.Server) int {
	n := 0
	for _, c := range m.Calls() {
		if c.Method == "run" && c.State == fakemodal.Queued {
			n++
		}
	}
	return n
}
