package workflows_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/worker"

	"github.com/comfyd/comfyd/workflows"
)

// ends are the kinds of end that each release has a history of.
var ends = []string{
	"canceled", "child", "collected-again", "completed", "failed", "inputs", "pool-gone", "retried", "stopped", "sweep", "timeout", "unplaced",
}

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
					r := worker.NewWorkflowReplayer()
					workflows.Register(r)
					require.NoError(t, r.ReplayWorkflowHistoryFromJSONFile(nil, f))
				})
			}
			if v.Name() == early {
				require.NotEmpty(t, names)
				return
			}
			require.Subset(t, names, ends, "a history of each kind of end: make histories VERSION=%s", v.Name())
		})
	}
}
