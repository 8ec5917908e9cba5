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
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			_, port, err := net.SplitHostPort(l.Addr().String())
			require.NoError(t, err)
			require.NoError(t, l.Close())

			s, _ := sender(t, here, webhook.Secret{Tenant: "alice", Value: "whsec_b2xkZXItb2xkZXItb2xkZXItb2xkZXI="}, webhook.Secret{Tenant: "alice", Value: "whsec_bmV3ZXItbmV3ZXItbmV3ZXItbmV3ZXI="})
			ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
			defer stop()
			receiver := exec.CommandContext(ctx, command[0], append(command[1:], file)...)
			receiver.Env = append(os.Environ(), "PORT="+port, "WEBHOOK_SECRET="+s.SecretsOf("alice")[1], "NODE_PATH="+filepath.Join(dir, "node_modules"))
			said := &output{}
			receiver.Stdout, receiver.Stderr = said, said
			ownGroup(receiver)
			require.NoError(t, receiver.Start())
			defer func() {
				stop()
				_ = receiver.Wait() // it was killed
			}()
			url := "http://127.0.0.1:" + port + "/hook"
			require.Eventually(t, func() bool {
				c, err := net.Dial("tcp", "127.0.0.1:"+port)
				if err == nil {
					err = c.Close()
				}
				return err == nil
			}, 2*time.Minute, 50*time.Millisecond, "it listens: %s", said)

			message := webhook.Message{Tenant: "alice", URL: url, ID: "msg_1", Body: []byte(`{"type":"job.completed","data":{"id":"ein-Käse"}}`)}
			d, err := s.Send(t.Context(), message)
			require.NoError(t, err)
			require.Equal(t, []any{comfy.Delivered, 204}, []any{d.Outcome, d.HTTPStatus}, "%+v\n%s", d, said)
			require.Eventually(t, func() bool { return bytes.Contains([]byte(said.String()), []byte("job.completed ein-Käse")) }, 10*time.Second, 10*time.Millisecond)

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
