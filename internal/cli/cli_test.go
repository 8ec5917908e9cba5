package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/internal/fakeapi"
)

func TestMain(m *testing.M) {
	if os.Getenv(askingVar) != "" { // TestAskTerminal runs itself on a terminal of its own
		fmt.Printf("answer %q\n", askTerminal(pictureQuery, time.Minute))
		return
	}
	goleak.VerifyTestMain(m)
}

const askingVar = "COMFYD_TEST_ASKING"

const (
	workflow = `{"1":{"class_type":"KSampler","inputs":{"seed":18446744073709551615,"steps":4},"_meta":{"title":"The Sampler"}},
		"9":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"x"}}}`
	queued    = `{"id":"job-1","status":"RUNNING","phase":"queued","queue_position":2}`
	running   = `{"id":"job-1","status":"RUNNING","phase":"running","progress":{"value":0.4,"nodes_done":1,"nodes_total":2,"current_node":"1","step":2,"steps":4}}`
	completed = `{"id":"job-1","status":"COMPLETED","output":{"images":[]},"metrics":{"queue_ms":0,"cold_start_ms":0,"execution_ms":0,"collect_ms":0,"total_ms":1500,"gpu_seconds":0}}`
	failed    = `{"id":"job-1","status":"FAILED","error":"mat1 and mat2 do not fit","code":"node_failed","node_id":"1"}`
)

// shell runs commands as a process would.
type shell struct {
	t        *testing.T
	in       io.Reader
	out, err buffer
	terminal bool
	vars     map[string]string
	again    chan os.Signal
}

func newShell(t *testing.T, s *fakeapi.Server) *shell {
	return &shell{t: t, in: strings.NewReader(""), vars: map[string]string{"COMFYD_URL": s.URL, "COMFYD_API_KEY": s.Key}, again: make(chan os.Signal, 1)}
}

// run returns the exit code. It is asked for with the test's own context.
func (s *shell) run(args ...string) int { return s.runContext(s.t.Context(), args...) }

func (s *shell) runContext(ctx context.Context, args ...string) int {
	root := &cobra.Command{Use: "comfyd"}
	root.AddCommand(Commands(Env{
		In: s.in, Out: &s.out, Err: &s.err, Getenv: func(k string) string { return s.vars[k] },
		Notify: func(c chan<- os.Signal) {
			go func() {
				select {
				case sig := <-s.again:
					c <- sig
				case <-s.t.Context().Done():
				}
			}()
		},
		IsTerminal: func(any) bool { return s.terminal },
		Ask:        func(string) string { return "" },
		// Far more than a pause of a busy machine.
		submitGrace: time.Minute, cancelTime: time.Minute, options: []client.Option{client.WithQuiet(time.Minute)},
	})...)
	root.SetOut(&s.out)
	root.SetErr(&s.err)
	root.SetArgs(args)
	return ExitCode(root.ExecuteContext(ctx))
}

// buffer may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) lines() []string { return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") }

func file(t *testing.T, dir, name, data string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(data), 0o600))
	return path
}

func TestSubmit(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Key = "secret"
	dir := t.TempDir()
	s.Statuses(queued, queued, running, `{"id":"job-1","status":"COMPLETED","metrics":{"total_ms":1500},"output":{"images":[`+
		s.Output("../../evil\x1b.png", []byte("pixels"))+`],"texts":[{"node_id":"5","text":"hi"}]}}`)
	sh := newShell(t, s)
	code := sh.run("submit", file(t, dir, "w.json", "\ufeff"+workflow), "--out", filepath.Join(dir, "out"), "--metadata", "a=b=c", "--metadata", "d=e,f",
		"--timeout", "90500ms", "--priority", "1", "--backend", "gpu", "--strip-metadata")
	require.Equal(t, 0, code, sh.err.String())
	image := filepath.Join(dir, "out", "evil_.png")
	require.Equal(t, []string{image, filepath.Join(dir, "out", "text_5.txt")}, sh.out.lines())
	got, err := os.ReadFile(image)
	require.NoError(t, err)
	require.Equal(t, "pixels", string(got))
	require.Equal(t, []string{
		"submitted as job-1", "queued, 2 before it", "running: The Sampler, 1/2 nodes", "COMPLETED in 1.5s",
	}, sh.err.lines())
	var sent map[string]any
	require.NoError(t, json.Unmarshal(s.Calls("POST /submit_workflow")[0].Body, &sent))
	delete(sent, "workflow")
	require.Equal(t, map[string]any{
		"metadata": map[string]any{"a": "b=c", "d": "e,f"}, "timeout_seconds": 91.0, "priority": 1.0, "backend": "gpu", "strip_metadata": true,
	}, sent)
	require.Contains(t, string(s.Calls("POST /submit_workflow")[0].Body), `"seed":18446744073709551615`)
	require.Empty(t, s.Calls("POST /inputs"))
}

func TestSubmitJSON(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Statuses(`{"id":"job-1","status":"COMPLETED","output":{"images":[{"filename":"a.png","type":"base64","data":"eA==","node_id":"9"}]}}`)
	sh := newShell(t, s)
	sh.in = strings.NewReader(workflow)
	dir := t.TempDir()
	require.Equal(t, 0, sh.run("submit", "-", "--json", "--out", dir), sh.err.String())
	require.JSONEq(t, `{"id":"job-1","status":"COMPLETED","output":{"images":[{"filename":"a.png","type":"base64","node_id":"9"}]},
		"saved":[{"path":"`+filepath.Join(dir, "a.png")+`","node_id":"9","filename":"a.png"}]}`, sh.out.String())
	require.Len(t, sh.out.lines(), 1)
}

func TestNoWait(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	sh := newShell(t, s)
	path := file(t, t.TempDir(), "w.json", workflow)
	require.Equal(t, 0, sh.run("submit", path, "--no-wait"))
	require.Equal(t, "job-1\n", sh.out.String())
	require.Empty(t, s.Calls("GET"))
	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("submit", path, "--no-wait", "--json"))
	require.JSONEq(t, `{"id":"job-1","status":"RUNNING","status_url":"`+s.URL+`/status/job-1"}`, sh.out.String())
}

func TestProgressBar(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Statuses(queued, running, strings.Replace(running, "0.4", "1", 1), completed)
	s.Next("GET /status", fakeapi.Answer(202, queued), fakeapi.Answer(503, `{"error":"restarting"}`))
	sh := newShell(t, s)
	sh.terminal = true
	require.Equal(t, 0, sh.run("submit", file(t, t.TempDir(), "w.json", workflow)), sh.err.String())
	text := sh.err.String()
	for _, want := range []string{"\r", "40% ", "99% ", "restarting (HTTP 503); trying again\n", "running: The Sampler, 1/2 nodes, step 2/4", "\nCOMPLETED in 1.5s\n"} {
		require.Contains(t, strings.ReplaceAll(text, "\rCOMPLETED", "\nCOMPLETED"), want)
	}
	require.NotContains(t, text, "100%")
}

func TestSubmitSurvivesRestart(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Statuses(running)
	s.Next("GET /status", fakeapi.Answer(202, running), func(http.ResponseWriter, *http.Request) {
		go s.Stop()
		panic(http.ErrAbortHandler)
	})
	sh := newShell(t, s)
	end := make(chan int, 1)
	go func() { end <- sh.run("submit", file(t, t.TempDir(), "w.json", workflow)) }()
	require.Eventually(t, func() bool { return strings.Contains(sh.err.String(), "refused") }, 30*time.Second, 10*time.Millisecond)
	s.Statuses(completed)
	s.Start()
	require.Equal(t, 0, <-end)
	require.Contains(t, sh.err.String(), "COMPLETED")
}

// What was saved before a corrupt file is told, and the exit code says that something is missing.
func TestCorruptDownload(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	good, bad := s.Output("good.png", []byte("good")), s.Output("bad.png", []byte("whole"))
	s.Statuses(`{"id":"job-1","status":"COMPLETED","output":{"images":[` + good + `,` + bad + `]}}`)
	half := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("who")) }
	s.Next("GET /outputs/1", half, half)
	sh := newShell(t, s)
	dir := t.TempDir()
	require.Equal(t, 1, sh.run("status", "job-1", "--out", dir))
	require.Equal(t, []string{"job-1 COMPLETED", filepath.Join(dir, "good.png")}, sh.out.lines())
	require.Contains(t, sh.err.String(), "not all of its files are here: bad.png did not arrive whole")
	require.Len(t, s.Calls("GET /outputs/1"), 2)
	require.NoFileExists(t, filepath.Join(dir, "bad.png"))
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Statuses(running, queued, `{"id":"job-1","status":"COMPLETED","cached":true,"metrics":{"total_ms":20},"output":{"images":[`+
		s.Output("a\x1b[2J.png", []byte("pixels"))+`],"texts":[{"node_id":"5","text":"two\nlines"}]}}`)
	sh := newShell(t, s)
	for range 3 {
		require.Equal(t, 0, sh.run("status", "job-1"), sh.err.String())
	}
	require.Equal(t, []string{
		"job-1 RUNNING running: node 1, 1/2 nodes, step 2/4",
		"job-1 RUNNING queued, 2 before it",
		"job-1 COMPLETED in 20ms, from ComfyUI's cache", "  a [2J.png (node 9, 6 B)", "  text of node 5: two lines",
	}, sh.out.lines())
	require.Empty(t, sh.err.String())

	s.Statuses(failed)
	sh = newShell(t, s)
	require.Equal(t, 1, sh.run("status", "job-1", "--json"))
	require.JSONEq(t, failed, sh.out.String())
}

func TestCancel(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	sh := newShell(t, s)
	require.Equal(t, 0, sh.run("cancel", "job-1"))
	s.Next("POST /cancel", fakeapi.Answer(200, completed), fakeapi.Answer(200, completed))
	require.Equal(t, 0, sh.run("cancel", "job-1"))
	require.Equal(t, []string{"job-1 is being canceled", "job-1 had ended: COMPLETED"}, sh.out.lines())
	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("cancel", "job-1", "--json"))
	require.JSONEq(t, completed, sh.out.String())
}

func TestKey(t *testing.T) {
	s := fakeapi.New(t)
	s.Statuses(completed)
	t.Chdir(t.TempDir())
	file(t, ".", "data/api-key", "from-default\n")
	elsewhere := t.TempDir()
	file(t, elsewhere, "api-key", "from-dir")
	for name, test := range map[string]struct {
		vars map[string]string
		args []string
		want string
	}{
		"flag":           {map[string]string{"COMFYD_API_KEY": "env"}, []string{"--key", "flag"}, "Bearer flag"},
		"environment":    {map[string]string{"COMFYD_API_KEY": "env"}, nil, "Bearer env"},
		"data folder":    {map[string]string{"COMFYD_DATA_DIR": elsewhere}, nil, "Bearer from-dir"},
		"default folder": {nil, nil, "Bearer from-default"},
		"none":           {map[string]string{"COMFYD_DATA_DIR": t.TempDir()}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			sh := newShell(t, s)
			sh.vars = test.vars
			// Without a scheme, as people write it.
			require.Equal(t, 0, sh.run(append([]string{"status", "job-1", "--url", strings.TrimPrefix(s.URL, "http://")}, test.args...)...), sh.err.String())
			calls := s.Calls("GET /status")
			require.Equal(t, test.want, calls[len(calls)-1].Header.Get("Authorization"))
		})
	}
	for host, want := range map[string]string{
		"localhost": "from-default", "::1": "from-default", "127.0.0.2": "from-default", "example.com": "", "10.0.0.1": "", "localhost.example.com": "",
	} {
		key, err := new(server).apiKey(Env{Getenv: func(string) string { return "" }}, host)
		require.NoError(t, err)
		require.Equal(t, want, key, host)
	}
}
