package cli

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakeapi"
)

// told is a stream of events: "kind data" each.
func told(events ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i, e := range events {
			kind, data, _ := strings.Cut(e, " ")
			fmt.Fprintf(w, "event: %s\nid: a-%d\ndata: %s\n\n", kind, i, data)
		}
	}
}

const (
	preview = `preview {"node_id":"1","content_type":"image/jpeg","data":"/9j/"}`
	told1   = `output {"list":"images","filename":"a.png","type":"url","node_id":"9"}`
)

func TestWatch(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	done := `done {"id":"job-1","status":"COMPLETED","metrics":{"total_ms":1500},"output":{"images":[` + s.Output("a.png", []byte("pixels")) + `]}}`
	stream := told("status "+queued, preview, "status "+running, told1, done)
	s.Next("GET /events/job-1", stream, stream, stream)
	dir := t.TempDir()
	sh := newShell(t, s)
	require.Equal(t, 0, sh.run("watch", "job-1", "-o", dir), sh.err.String())
	require.Equal(t, []string{"job-1 COMPLETED in 1.5s", filepath.Join(dir, "a.png")}, sh.out.lines())
	require.Equal(t, []string{"queued, 2 before it", "running: node 1, 1/2 nodes"}, sh.err.lines())

	// Without an ID: the newest that is open.
	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("watch", "--json"), sh.err.String())
	require.Equal(t, "limit=1&status=RUNNING", s.Calls("GET /jobs")[0].Query)
	require.Empty(t, sh.err.String())
	lines := sh.out.lines()
	require.Len(t, lines, 4, "a preview is left out")
	require.JSONEq(t, `{"event":"status","id":"job-1","status":`+queued+`}`, lines[0])
	require.JSONEq(t, `{"event":"output","id":"job-1","list":"images","output":{"filename":"a.png","type":"url","node_id":"9"}}`, lines[2])
	require.Contains(t, lines[3], `{"event":"done","id":"job-1","status":{"id":"job-1","status":"COMPLETED"`)

	s.Next("GET /jobs", fakeapi.Answer(200, `{"jobs":[]}`))
	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("watch"))
	require.Equal(t, "no job is open\n", sh.err.String())
}

// TestWatchSeveral: one that has failed is told, and the others go on; where there are no events, the status is asked for.
func TestWatchSeveral(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Next("GET /events/bad", told("done "+failed))
	s.Statuses(running, completed)
	sh := newShell(t, s)
	require.Equal(t, 1, sh.run("watch", "bad", "job-1"))
	require.Equal(t, []string{"job-1 COMPLETED in 1.5s"}, sh.out.lines())
	require.Equal(t, []string{"bad", "job-1", "running: node 1, 1/2 nodes", "Error: the job failed at node 1: mat1 and mat2 do not fit (node_failed)"}, sh.err.lines())
	require.Equal(t, 2, newShell(t, s).run("watch", "nope"))
}

// TestWatchInterrupted: the job goes on, and nobody is asked.
func TestWatchInterrupted(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Statuses(running)
	s.Next("GET /events/job-1", func(w http.ResponseWriter, r *http.Request) {
		told("status "+running)(w, r)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	sh := newShell(t, s)
	sh.terminal, sh.in = true, strings.NewReader("y\n")
	ctx, ctrlC := context.WithCancel(t.Context())
	end := make(chan int, 1)
	go func() { end <- sh.runContext(ctx, "watch", "job-1", "job-2") }()
	require.Eventually(t, func() bool { return strings.Contains(sh.err.String(), "running: node 1") }, 30*time.Second, 5*time.Millisecond)
	ctrlC()
	require.Equal(t, 130, <-end)
	require.Contains(t, sh.err.String(), "job job-1 goes on")
	require.Empty(t, s.Calls("POST /cancel"))
	require.NotContains(t, sh.err.String(), "job-2", "nothing is told of those that were not begun")
}

func TestOutputs(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	done := `{"id":"job-1","status":"COMPLETED","output":{"images":[` + s.Output("a.png", []byte("pixels")) + `]}}`
	s.Statuses(done)
	s.Next("GET /outputs/0", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("pixelz")) })
	dir := t.TempDir()
	sh := newShell(t, s)
	require.Equal(t, 0, sh.run("outputs", "job-1", "-o", dir), sh.err.String())
	require.Equal(t, []string{filepath.Join(dir, "a.png")}, sh.out.lines())
	require.Len(t, s.Calls("GET /outputs/0"), 2, "what was not the announced bytes is fetched once more")

	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("outputs", "job-1", "--list", "-o", dir))
	require.Equal(t, []string{"job-1 COMPLETED", "  a.png (node 9, 6 B)"}, sh.out.lines())
	require.Len(t, s.Calls("GET /outputs/0"), 2)

	s.Statuses(running)
	sh = newShell(t, s)
	require.Equal(t, 1, sh.run("outputs", "job-1"))
	require.Contains(t, sh.err.String(), `job job-1 has not ended: running: node 1, 1/2 nodes; to wait for it: comfyd watch job-1 --out "."`)
	s.Statuses(failed)
	require.Equal(t, 1, newShell(t, s).run("outputs", "job-1"))
	require.Equal(t, 2, newShell(t, s).run("outputs"))
}
