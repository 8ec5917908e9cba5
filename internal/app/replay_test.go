package app_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
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
	"github.com/comfyd/comfyd/workflows"
)

// TestReplay runs jobs to each kind of end and replays their histories. With COMFYD_RECORD_HISTORIES=folder it keeps
// them, for workflows/testdata: once for each release.
func TestReplay(t *testing.T) {
	a := start(t, map[string]string{"COMFYUI_URLS": comfyURL(t)})
	a.ready()
	canceled := a.submit(map[string]any{"workflow": slow(t)})
	require.Eventually(t, func() bool { return a.do("GET", "/status/"+canceled, nil).body["phase"] == "running" }, time.Minute, 50*time.Millisecond)
	a.do("POST", "/cancel/"+canceled, nil)
	ends := map[string]string{
		"canceled":  canceled,
		"completed": a.submit(map[string]any{"workflow": graph(21, "replay"), "metadata": map[string]string{"a": "b"}}),
		"failed":    a.submit(map[string]any{"workflow": json.RawMessage(testdata(t, "fail_bad_regex.json"))}),
		"timeout":   a.submit(map[string]any{"workflow": slow(t), "timeout_seconds": 1}),
	}
	for _, id := range ends {
		a.finish(id)
	}
	c, err := client.Dial(client.Options{HostPort: a.app.TemporalAddress})
	require.NoError(t, err)
	defer c.Close()
	for name, id := range ends {
		t.Run(name, func(t *testing.T) {
			h := fetch(t, c, id)
			for _, e := range h.Events {
				require.NotEqual(t, comfy.ActivityStop, e.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName(),
					"the activity that ran the prompt has stopped it, and nobody need do so again")
			}
			replay(t, name, h)
		})
	}
}

// TestReplaySweep does so with a sweep of the store.
func TestReplaySweep(t *testing.T) {
	d := onDouble(t, nil)
	d.sweep()
	replay(t, "sweep", fetch(t, d.temporal(), sweepID))
}

func replay(t *testing.T, name string, h *history.History) {
	t.Helper()
	r := worker.NewWorkflowReplayer()
	r.RegisterWorkflowWithOptions(workflows.ComfyUI, workflow.RegisterOptions{Name: comfy.WorkflowName})
	r.RegisterWorkflowWithOptions(workflows.Sweep, workflow.RegisterOptions{Name: workflows.SweepName})
	require.NoError(t, r.ReplayWorkflowHistory(nil, h))
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
