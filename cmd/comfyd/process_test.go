package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain lets the tests run this very binary as comfyd, as a process that can be killed.
func TestMain(m *testing.M) {
	if os.Getenv("COMFYD_TEST_AS_MAIN") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

const secret = "a-secret-for-the-tests"

// comfyd is comfyd as a user starts it.
type comfyd struct {
	t    *testing.T
	vars []string
	url  string
	key  string
	role string // a subcommand; empty: everything
	// binary is the program; empty: this test's own
	binary string
	cmd    *exec.Cmd
	out    *bytes.Buffer
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// prepare chooses a data folder and ports, which stay the same over restarts.
func prepare(t *testing.T, vars ...string) *comfyd {
	t.Helper()
	p := &comfyd{t: t, key: secret}
	listen := freePort(t)
	p.url = "http://" + listen
	p.vars = append([]string{
		"COMFYD_TEST_AS_MAIN=1", "COMFYD_DATA_DIR=" + t.TempDir(), "COMFYD_LISTEN=" + listen, "COMFYD_API_KEYS=alice:" + secret,
		"COMFYD_TEMPORAL_LISTEN=" + freePort(t), "COMFYD_TEMPORAL_UI_LISTEN=" + freePort(t), "COMFYD_LOG_LEVEL=warn",
	}, vars...)
	t.Cleanup(p.kill)
	return p
}

func (p *comfyd) start() {
	p.t.Helper()
	p.out = &bytes.Buffer{}
	binary := p.binary
	if binary == "" {
		binary = os.Args[0]
	}
	p.cmd = exec.Command(binary)
	if p.role != "" {
		p.cmd.Args = append(p.cmd.Args, p.role)
	}
	p.cmd.Env = append(os.Environ(), p.vars...)
	p.cmd.Dir = p.t.TempDir()
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	require.NoError(p.t, p.cmd.Start())
	require.Eventually(p.t, func() bool {
		code, _, err := p.get("/readyz")
		return err == nil && code == 200
	}, 2*time.Minute, 50*time.Millisecond, "comfyd becomes ready")
}

// signal sends the process a signal and waits for its end.
func (p *comfyd) signal(s syscall.Signal) {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	_ = p.cmd.Process.Signal(s)
	_ = p.cmd.Wait()
	if p.t.Failed() {
		p.t.Logf("comfyd said:\n%s", p.out)
	}
	p.cmd = nil
}

func (p *comfyd) kill() { p.signal(syscall.SIGKILL) }

// variable is what a setting was prepared with; the last one counts.
func (p *comfyd) variable(name string) string {
	p.t.Helper()
	for _, v := range slices.Backward(p.vars) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	p.t.Fatalf("%s was not prepared", name)
	return ""
}

func (p *comfyd) request(method, path string, body any, header ...string) (int, map[string]any, error) {
	var r io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		r = bytes.NewReader(raw)
	}
	ctx, done := context.WithTimeout(context.Background(), 70*time.Second)
	defer done()
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, r)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return 0, nil, fmt.Errorf("reading the answer: %w", err)
	}
	return res.StatusCode, out, nil
}

func (p *comfyd) get(path string) (int, map[string]any, error) { return p.request("GET", path, nil) }

func (p *comfyd) submit(workflow json.RawMessage) string {
	p.t.Helper()
	code, body, err := p.request("POST", "/submit_workflow", map[string]any{"workflow": workflow})
	require.NoError(p.t, err)
	require.Equal(p.t, 202, code, "%v", body)
	return body["id"].(string)
}

func (p *comfyd) running(id string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		_, body, err := p.get("/status/" + id)
		require.NoError(p.t, err)
		require.NotEqual(p.t, "COMPLETED", body["status"], "it ended before the fault")
		progress, _ := body["progress"].(map[string]any)
		return body["phase"] == "running" && progress["value"].(float64) > 0
	}, 2*time.Minute, 20*time.Millisecond, "the job runs")
}

func (p *comfyd) finish(id string) map[string]any {
	p.t.Helper()
	var body map[string]any
	require.Eventually(p.t, func() bool {
		code, b, err := p.get("/status/" + id + "?wait=5")
		body = b
		return err == nil && code == 200
	}, 4*time.Minute, 20*time.Millisecond, "job %s ends", id)
	return body
}

// counter stands before a real ComfyUI and counts the prompts that reach it.
type counter struct {
	*httptest.Server
	mu    sync.Mutex
	posts int
}

func count(t *testing.T) *counter {
	t.Helper()
	target := os.Getenv("COMFYD_TEST_COMFYUI")
	if target == "" {
		t.Skip("COMFYD_TEST_COMFYUI is not set: make test starts a real ComfyUI and sets it")
	}
	u, err := url.Parse(target)
	require.NoError(t, err)
	c := &counter{}
	proxy := httputil.NewSingleHostReverseProxy(u)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" && r.URL.Path == "/prompt" {
			c.mu.Lock()
			c.posts++
			c.mu.Unlock()
		}
		r.Host = u.Host
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *counter) runs() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.posts
}

// slow is a workflow that takes ComfyUI many seconds and reports progress. Each name gives another one, because ComfyUI
// caches what it has run.
func slow(t *testing.T, name string) json.RawMessage {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "testdata", "long_progress.json"))
	require.NoError(t, err)
	h := fnv.New32()
	_, _ = h.Write([]byte(name)) // never fails
	// The node ignores this input for images.
	raw = bytes.Replace(raw, []byte(`"temporal_size": 64`), fmt.Appendf(nil, `"temporal_size": %d`, 64+h.Sum32()%4000), 1)
	return bytes.ReplaceAll(raw, []byte("1536"), []byte("2304"))
}

func noise(seed int) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":0}},
		"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":%d,"strength":0.5}},
		"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"kill"}}}`, seed))
}
