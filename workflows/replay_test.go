package workflows_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/workflows"
)

// ends are the kinds of end that each release has a history of.
var ends = []string{
	"canceled", "child", "collected-again", "completed", "failed", "inputs", "pool-gone", "retried", "stopped", "sweep", "timeout", "unplaced",
}

// later are those of releases after v0.0.1, which knew no webhooks.
var later = []string{"told", "webhook"}

// early has histories of before there were releases, and not of all ends.
const early = "v0.0.0"

// TestReplayStoredHistories replays jobs and sweeps as released versions have run them, a folder for each. A change that
// breaks one needs workflow.GetVersion, not a new history: docs/releasing.md.
func TestReplayStoredHistories(t *testing.T) {
	versions, err := os.ReadDir("testdata")
	require.NoError(t, err)
	require.NotEmpty(t, versions)
	for _, v := range versions {
		t.Run(v.Name(), func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join("testdata", v.Name(), "*.json"))
			require.NoError(t, err)
			var names []string
			for _, f := range files {
				name := filepath.Base(f)
				names = append(names, name[:len(name)-len(".json")])
				t.Run(name, func(t *testing.T) {
					raw, err := os.Open(f)
					require.NoError(t, err)
					defer raw.Close()
					h, err := client.HistoryFromJSON(raw, client.HistoryJSONOptions{})
					require.NoError(t, err)
					r := worker.NewWorkflowReplayer()
					workflows.Register(r)
					// A job's webhook is named after the job.
					id := h.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes().GetWorkflowId()
					require.NoError(t, r.ReplayWorkflowHistoryWithOptions(nil, h, worker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: id}}))
				})
			}
			if v.Name() == early {
				require.NotEmpty(t, names)
				return
			}
			want := ends
			if v.Name() > "v0.0.1" {
				want = slices.Concat(ends, later)
			}
			require.Subset(t, names, want, "a history of each kind of end: make histories VERSION=%s", v.Name())
		})
	}
}
