package app_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/cli"
)

// TestCommandLine: a job's life by the client commands, on a real ComfyUI.
func TestCommandLine(t *testing.T) {
	a := start(t, map[string]string{"COMFYUI_URLS": comfyURL(t)})
	a.ready()
	dir := t.TempDir()
	vars := map[string]string{"COMFYD_URL": a.url, "COMFYD_API_KEY": a.key}
	run := func(code int, args ...string) (out, errs string) {
		t.Helper()
		var o, e bytes.Buffer
		root := &cobra.Command{Use: "comfyd", SilenceErrors: true}
		root.AddCommand(cli.Commands(cli.Env{
			In: strings.NewReader(`{"1.color": 255}` + "\n" + `{"1.color": 65280}`), Out: &o, Err: &e, Getenv: func(k string) string { return vars[k] },
			IsTerminal: func(any) bool { return false },
		})...)
		root.SetOut(&o)
		root.SetErr(&e)
		root.SetArgs(args)
		err := root.ExecuteContext(t.Context())
		require.Equal(t, code, cli.ExitCode(err), "comfyd %s: %v\n%s%s", strings.Join(args, " "), err, o.String(), e.String())
		return o.String(), e.String()
	}
	workflow := filepath.Join("..", "..", "testdata", "progress_tiled.json")
	id, _ := run(0, "submit", workflow, "--no-wait", "--metadata", "shot=7")
	id = strings.TrimSpace(id)
	lines, _ := run(0, "watch", id, "--json")
	var kinds []string
	for line := range strings.Lines(lines) {
		var e struct{ Event, ID string }
		require.NoError(t, json.Unmarshal([]byte(line), &e), line)
		require.Equal(t, id, e.ID)
		kinds = append(kinds, e.Event)
	}
	require.Contains(t, kinds, "output")
	require.Equal(t, "done", kinds[len(kinds)-1])
	out, _ := run(0, "outputs", id, "-o", dir)
	info, err := os.Stat(strings.TrimSpace(strings.Split(out, "\n")[0]))
	require.NoError(t, err)
	require.NotZero(t, info.Size())

	batch := filepath.Join(dir, "batch.json")
	require.NoError(t, os.WriteFile(batch, graph(1, "batch"), 0o600))
	out, errs := run(0, "batch", batch, "-", "--out", dir)
	require.Len(t, strings.Fields(out), 2, errs)
	require.Contains(t, errs, "1.color = 65280")

	// The list follows in a moment.
	require.Eventually(t, func() bool {
		out, _ = run(0, "jobs", "--status", "completed", "--metadata", "shot=7", "--since", "1h", "--quiet")
		return out == id+"\n"
	}, 2*time.Minute, 100*time.Millisecond)
	out, _ = run(0, "jobs")
	require.Len(t, strings.Split(strings.TrimSpace(out), "\n"), 4, "a title, and three jobs:\n%s", out)
	out, _ = run(0, "__complete", "outputs", id[:8])
	require.Contains(t, out, id+"\tcompleted, ")

	run(0, "delete", id)
	run(2, "outputs", id)
	vars["COMFYD_API_KEY"] = "no such key at all"
	run(4, "jobs")
}
