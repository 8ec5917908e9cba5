package webhook_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/webhook"
)

// output is what a process has said so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// receive starts a receiver and returns its address and what it says. Between the choice of its port and its use, others
// may take it: a receiver that ends before it listens is started again, at another one.
func receive(t *testing.T, command []string, env ...string) (url string, said *output) {
	t.Helper()
	asks := http.Client{Timeout: 10 * time.Second}
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		_, port, err := net.SplitHostPort(l.Addr().String())
		require.NoError(t, err)
		require.NoError(t, l.Close())

		url, said = "http://127.0.0.1:"+port+"/hook", &output{}
		receiver := exec.CommandContext(t.Context(), command[0], command[1:]...)
		receiver.Env = append(append(os.Environ(), env...), "PORT="+port)
		receiver.Stdout, receiver.Stderr = said, said
		ownGroup(receiver)
		require.NoError(t, receiver.Start())
		running, end := context.WithCancel(context.Background())
		go func() {
			defer end()
			_ = receiver.Wait() // it was killed, or has said what is wrong
		}()
		t.Cleanup(func() { <-running.Done() }) // it ends with the test's context
		require.Eventually(t, func() bool {
			resp, err := asks.Post(url, "application/json", strings.NewReader("{}"))
			if err != nil {
				return running.Err() != nil
			}
			defer resp.Body.Close()
			// Another server that has the port would not say this to what nobody has signed.
			return resp.StatusCode == http.StatusBadRequest || running.Err() != nil
		}, 2*time.Minute, 50*time.Millisecond, "it listens: %s", said)
		if running.Err() == nil {
			return url, said
		}
	}
	t.Fatalf("it ends: %s", said)
	return "", nil
}

// TestReceiversOfTheDocs runs those of docs/webhooks.md as they stand there, with the official libraries of their languages.
func TestReceiversOfTheDocs(t *testing.T) {
	dir := os.Getenv("COMFYD_TEST_NODE")
	if dir == "" {
		t.Skip("COMFYD_TEST_NODE is not set: make test installs the libraries and sets it")
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "webhooks.md"))
	require.NoError(t, err)
	for language, command := range map[string][]string{
		"python": {filepath.Join(dir, "venv", "bin", "python")},
		"js":     {filepath.Join(dir, "node")},
		"go":     {"go", "run"},
	} {
		t.Run(language, func(t *testing.T) {
			code := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(page)
			require.NotNil(t, code)
			file := filepath.Join(t.TempDir(), "receiver."+map[string]string{"python": "py", "js": "cjs", "go": "go"}[language])
			require.NoError(t, os.WriteFile(file, code[1], 0o600))

			s, _ := sender(t, here, webhook.Secret{Tenant: "alice", Value: "whsec_b2xkZXItb2xkZXItb2xkZXItb2xkZXI="}, webhook.Secret{Tenant: "alice", Value: "whsec_bmV3ZXItbmV3ZXItbmV3ZXItbmV3ZXI="})
			url, said := receive(t, append(command, file), "WEBHOOK_SECRET="+s.SecretsOf("alice")[1], "NODE_PATH="+filepath.Join(dir, "node_modules"))

			message := webhook.Message{Tenant: "alice", URL: url, ID: "msg_1", Body: []byte(`{"type":"job.completed","data":{"id":"ein-Käse"}}`)}
			d, err := s.Send(t.Context(), message)
			require.NoError(t, err)
			require.Equal(t, []any{comfy.Delivered, 204}, []any{d.Outcome, d.HTTPStatus}, "%+v\n%s", d, said)
			require.Eventually(t, func() bool { return bytes.Contains([]byte(said.String()), []byte("job.completed ein-Käse")) }, 30*time.Second, 10*time.Millisecond)

			// Somebody in between changes it.
			between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				raw, _ := io.ReadAll(r.Body)
				changed, err := http.NewRequestWithContext(r.Context(), "POST", url, bytes.NewReader(bytes.ReplaceAll(raw, []byte("Käse"), []byte("Brot"))))
				if err != nil {
					return
				}
				changed.Header = r.Header
				resp, err := http.DefaultClient.Do(changed)
				if err != nil {
					return
				}
				defer resp.Body.Close()
				w.WriteHeader(resp.StatusCode)
			}))
			defer between.Close()
			message.URL = between.URL
			d, err = s.Send(t.Context(), message)
			require.NoError(t, err)
			require.Equal(t, 400, d.HTTPStatus, "%s", said)
			message.URL, message.Tenant = url, "bob"
			d, err = s.Send(t.Context(), message)
			require.NoError(t, err)
			require.Equal(t, 400, d.HTTPStatus, "signed with another secret: %s", said)
		})
	}
}
