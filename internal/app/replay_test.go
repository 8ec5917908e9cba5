package app_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakecomfy"
	"github.com/comfyd/comfyd/workflows"
)

// ends are the histories of one run of jobs to each kind of end, on doubles of ComfyUI.
type ends struct {
	*double
	t      *testing.T
	c      client.Client
	ids    map[string]string // by the kind of end
	shared string            // the store's URL
}

// TestReplay runs jobs to each kind of end and replays their histories. With COMFYD_RECORD_HISTORIES=folder it keeps
// them, for workflows/testdata: once for each release (scripts/histories.sh).
func TestReplay(t *testing.T) {
	e := &ends{t: t, ids: map[string]string{}, shared: "file://" + t.TempDir()}
	e.double = onDouble(t, map[string]string{"COMFYD_STORE_URL": e.shared, "COMFYD_SITE": "here", "COMFYD_POOL_TIMEOUT": "5s", "COMFYD_PRIVATE_NETWORKS": "127.0.0.1/32"})
	e.c = e.temporal()
	e.own()
	e.twice()
	e.child()
	e.away()
	e.told()
	e.sweep()
	e.ids["sweep"] = sweepID

	for name, id := range e.ids {
		t.Run(name, func(t *testing.T) {
			h := fetch(t, e.c, id)
			stops := 0
			for _, event := range h.Events {
				if event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName() == comfy.ActivityStop {
					stops++
				}
			}
			require.Equal(t, map[string]int{"stopped": 1}[name], stops,
				"where the activity that ran the prompt has stopped it, nobody need do so again")
			replay(t, name, id, h)
		})
	}
}

// job sends one and keeps its history under a name.
func (e *ends) job(name string, body map[string]any) (id string) {
	e.t.Helper()
	id = e.submit(body)
	e.ids[name] = id
	return id
}

// is holds a job's end against what it is meant to be.
func (e *ends) is(id string, attempts int, state, code string) {
	e.t.Helper()
	status := e.finish(id)
	require.Equal(e.t, state, status["status"], "%v", status)
	if code != "" {
		require.Equal(e.t, code, status["code"], "%v", status)
	}
	n, _ := status["attempts"].(float64)
	require.EqualValues(e.t, attempts, n, "%v", status)
}

// own are the ends that a job has by itself.
func (e *ends) own() {
	e.is(e.job("completed", map[string]any{"workflow": graph(21, "replay"), "metadata": map[string]string{"a": "b"}}), 1, "COMPLETED", "")
	e.is(e.job("inputs", withFile(e.t, "replay")), 1, "COMPLETED", "")
	e.comfy.FailNode("VAEDecodeTiled", "ValueError", "it broke")
	e.is(e.job("failed", map[string]any{"workflow": ticking(1)}), 1, "FAILED", "node_failed")
	e.comfy.FailNode("VAEDecodeTiled", "", "")

	canceled := e.job("canceled", map[string]any{"workflow": ticking(2)})
	e.until(canceled, "running")
	e.do("POST", "/cancel/"+canceled, nil)
	e.is(canceled, 1, "FAILED", "canceled")
	e.is(e.job("timeout", map[string]any{"workflow": ticking(3), "timeout_seconds": 1}), 1, "FAILED", "timeout")
}

// twice are those of jobs that are run again.
func (e *ends) twice() {
	gate := e.comfy.Hold("EmptyImage")
	retried := e.job("retried", map[string]any{"workflow": graph(22, "replay")})
	gate.Reached()
	e.comfy.Restart() // its queue is wiped
	gate.Open()
	e.is(retried, 2, "COMPLETED", "")

	history := e.comfy.HoldHistory() // the prompt has ended, and nobody knows of its files yet
	again := e.job("collected-again", map[string]any{"workflow": graph(23, "lost")})
	history.Reached()
	var files []string
	e.comfy.Await("its file", func() bool {
		for name := range e.comfy.Files("output") {
			if strings.HasPrefix(name, "lost") {
				files = append(files, name)
			}
		}
		return len(files) > 0
	})
	for _, name := range files {
		e.comfy.RemoveFile("output", name)
	}
	history.Open()
	e.is(again, 2, "COMPLETED", "")
}

// child is a job that a workflow of others has started, and one that none of the pools may take.
func (e *ends) child() {
	w := worker.New(e.c, "others", worker.Options{})
	w.RegisterWorkflow(parent)
	require.NoError(e.t, w.Start())
	defer w.Stop()
	ctx, done := context.WithTimeout(e.t.Context(), time.Minute)
	defer done()
	start := client.StartWorkflowOptions{TaskQueue: "others"}
	run, err := e.c.ExecuteWorkflow(ctx, start, parent, order{ID: "a-child", Request: input(e.t, comfy.Request{Workflow: graph(24, "child")})})
	require.NoError(e.t, err)
	require.NoError(e.t, run.Get(ctx, nil))
	e.ids["child"] = "a-child"
	run, err = e.c.ExecuteWorkflow(ctx, start, parent, order{ID: "no-place", Request: input(e.t, comfy.Request{Workflow: graph(25, "child"), Backend: "nowhere", StartTimeoutSeconds: 1})})
	require.NoError(e.t, err)
	require.Error(e.t, run.Get(ctx, nil))
	e.ids["unplaced"] = "no-place"
}

// away are those of jobs at a pool whose only worker goes: one leaves the pool, one is stopped by its next worker.
func (e *ends) away() {
	there := fakecomfy.New(e.t)
	gate := there.Hold("EmptyImage")
	defer gate.Open()
	vars := map[string]string{"COMFYUI_URLS": there.URL, "COMFYD_SITE": "there"}
	e.comfy.Stop() // so that jobs go to the other pool
	stop := join(e.t, e.api, e.shared, vars)
	e.ready()
	moved := e.job("pool-gone", map[string]any{"workflow": graph(28, "replay")})
	gate.Reached()
	stopped := e.job("stopped", map[string]any{"workflow": graph(29, "replay"), "backend": "url-there"})
	there.Await("both prompts", func() bool { return len(there.Posted()) == 2 })
	stop()
	e.comfy.Start()
	e.do("POST", "/cancel/"+stopped, nil)
	e.is(moved, 2, "COMPLETED", "")
	join(e.t, e.api, e.shared, vars)
	e.is(stopped, 1, "FAILED", "canceled")
}

// told is a job with a webhook, and the workflow of that, whose second attempt succeeds.
func (e *ends) told() {
	r := newHookReceiver(e.t)
	r.secret = e.do("GET", "/webhooks/secret", nil).body["secrets"].([]any)[0].(string)
	open := r.shut()
	id := e.job("told", map[string]any{"workflow": graph(30, "replay"), "webhook_url": r.URL})
	e.is(id, 1, "COMPLETED", "")
	r.tried(id, 1)
	open()
	r.told(id, 1)
	e.webhookIs(id, "delivered")
	e.ids["webhook"] = comfy.WebhookWorkflowID(id)
}

func replay(t *testing.T, name, id string, h *history.History) {
	t.Helper()
	r := worker.NewWorkflowReplayer()
	workflows.Register(r)
	require.NoError(t, r.ReplayWorkflowHistoryWithOptions(nil, h, worker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: id}}))
	if dir := os.Getenv("COMFYD_RECORD_HISTORIES"); dir != "" {
		raw, err := protojson.MarshalOptions{Indent: " "}.Marshal(h)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+".json"), raw, 0o644))
	}
}

func fetch(t *testing.T, c client.Client, id string) *history.History {
	t.Helper()
	ctx, done := context.WithTimeout(context.Background(), 30*time.Second)
	defer done()
	h := &history.History{}
	for it := c.GetWorkflowHistory(ctx, id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
		e, err := it.Next()
		require.NoError(t, err)
		h.Events = append(h.Events, e)
	}
	return h
}
