package app_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/app"
	"github.com/comfyd/comfyd/internal/config"
)

const (
	secret = "a-secret-for-the-tests"
	other  = "another-tenants-secret"
)

// comfyURL is the real ComfyUI that `make test` starts.
func comfyURL(t *testing.T) string {
	t.Helper()
	u := os.Getenv("COMFYD_TEST_COMFYUI")
	if u == "" {
		t.Skip("COMFYD_TEST_COMFYUI is not set: make test starts a real ComfyUI and sets it")
	}
	return u
}

// start runs a whole comfyd in this process, on ports of its own.
func start(t *testing.T, vars map[string]string) *api {
	t.Helper()
	return startAs(t, app.Serve, vars)
}

// startAs runs one role of it.
func startAs(t *testing.T, role app.Role, vars map[string]string) *api {
	t.Helper()
	log := logrus.New()
	log.SetLevel(logrus.WarnLevel)
	log.SetOutput(testWriter{t})
	return startWith(t, role, vars, log)
}

// startWith runs one role with a log of the test's own.
func startWith(t *testing.T, role app.Role, vars map[string]string, log *logrus.Logger) *api {
	t.Helper()
	all := map[string]string{
		"COMFYD_DATA_DIR": t.TempDir(), "COMFYD_LISTEN": "127.0.0.1:0", "COMFYD_TEMPORAL_LISTEN": "127.0.0.1:0",
		"COMFYD_TEMPORAL_UI_LISTEN": "127.0.0.1:0", "COMFYD_BACKEND": "url",
	}
	for k, v := range vars {
		all[k] = v
	}
	c, err := config.Parse(all)
	require.NoError(t, err)
	c.Keys = []config.Key{{Tenant: "alice", Secret: secret}, {Tenant: "bob", Secret: other}}
	c.Signing = []byte("0123456789abcdef0123456789abcdef")
	a := app.New(c, role, "test", log)
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	require.NoError(t, a.Start(ctx))
	t.Cleanup(func() {
		ctx, done := context.WithTimeout(context.Background(), time.Minute)
		defer done()
		a.Stop(ctx)
	})
	return &api{t: t, url: "http://" + a.Address(), key: secret, app: a}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

// api is a client as the PRD knows it: nothing but HTTP.
type api struct {
	t   *testing.T
	url string
	key string
	app *app.App
}

type answer struct {
	code   int
	header http.Header
	body   map[string]any
}

func (a *api) do(method, path string, body any, header ...string) answer {
	a.t.Helper()
	var r io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		require.NoError(a.t, err)
		r = bytes.NewReader(raw)
	}
	ctx, done := context.WithTimeout(context.Background(), 3*time.Minute)
	defer done()
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, r)
	require.NoError(a.t, err)
	req.Header.Set("Authorization", "Bearer "+a.key)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(a.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(a.t, err)
	out := answer{code: res.StatusCode, header: res.Header}
	if res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusNotModified {
		require.NoError(a.t, json.Unmarshal(raw, &out.body), "every answer is JSON: %s", raw)
	}
	return out
}

// submit sends a job that must be accepted and returns its id.
func (a *api) submit(body map[string]any, header ...string) string {
	a.t.Helper()
	r := a.do("POST", "/submit_workflow", body, header...)
	require.Equal(a.t, 202, r.code, "%v", r.body)
	require.Equal(a.t, "RUNNING", r.body["status"])
	return r.body["id"].(string)
}

// finish polls a job to its end.
func (a *api) finish(id string) map[string]any {
	a.t.Helper()
	for end := time.Now().Add(4 * time.Minute); time.Now().Before(end); {
		r := a.do("GET", "/status/"+id+"?wait=30", nil)
		if r.code == 202 {
			require.Equal(a.t, "RUNNING", r.body["status"])
			continue
		}
		require.Equal(a.t, 200, r.code, "%v", r.body)
		return r.body
	}
	a.t.Fatalf("job %s has not ended in four minutes", id)
	return nil
}

// outputs are the files of a completed job, images first.
func outputs(t *testing.T, status map[string]any) []map[string]any {
	t.Helper()
	require.Equal(t, "COMPLETED", status["status"], "%v", status)
	var all []map[string]any
	out := status["output"].(map[string]any)
	for _, key := range []string{"images", "files"} {
		list, _ := out[key].([]any)
		for _, o := range list {
			all = append(all, o.(map[string]any))
		}
	}
	return all
}

func bytesOf(t *testing.T, output map[string]any) []byte {
	t.Helper()
	require.Equal(t, "base64", output["type"])
	raw, err := base64.StdEncoding.DecodeString(output["data"].(string))
	require.NoError(t, err)
	return raw
}

// testdata reads a file of the corpus.
func testdata(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "testdata", name))
	require.NoError(t, err)
	return raw
}

// slow is a workflow that takes ComfyUI many seconds and reports progress; each call gives another one, because ComfyUI
// caches what it has run.
func slow(t *testing.T) json.RawMessage {
	n := 65 + time.Now().UnixNano()%4000
	// The node ignores this input for images.
	raw := bytes.Replace(testdata(t, "long_progress.json"), []byte(`"temporal_size": 64`), fmt.Appendf(nil, `"temporal_size": %d`, n), 1)
	return bytes.ReplaceAll(raw, []byte("1536"), []byte("2304"))
}

// graph writes a workflow that makes one plain picture.
func graph(color int, prefix string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":48,"batch_size":1,"color":%d}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":%q}}}`, color, prefix))
}
