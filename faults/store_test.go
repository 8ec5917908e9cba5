package faults

import (
	"encoding/base64"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// startS3 starts a real S3 server (versitygw) with the bucket "bkt".
func startS3(t *testing.T) string {
	t.Helper()
	binary := os.Getenv("COMFYD_TEST_S3_SERVER")
	if binary == "" {
		t.Skip("COMFYD_TEST_S3_SERVER is not set: it names the S3 server (versitygw) that make test builds")
	}
	dir, addr := t.TempDir(), freePort(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bkt"), 0o700))
	cmd := exec.Command(binary, "--port", addr, "--access", "access", "--secret", "the-secret-key-of-s3", "posix", dir)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	require.Eventually(t, func() bool {
		res, err := http.Get("http://" + addr)
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	}, 2*time.Minute, 50*time.Millisecond, "the S3 server comes up")
	return addr
}

// sick is an S3 server that says 503 to everything while it is ill, or, while it lies, 500 to every change that it has made.
type sick struct {
	*httptest.Server
	ill, lies atomic.Bool
	refused   atomic.Int64
}

func newSick(t *testing.T, target string) *sick {
	t.Helper()
	u, err := url.Parse("http://" + target)
	require.NoError(t, err)
	s := &sick{}
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Host = r.In.Host }, // the signature is over the host
		ErrorLog: log.New(io.Discard, "", 0),
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.ill.Load() {
			s.refused.Add(1)
			http.Error(w, "SlowDown", http.StatusServiceUnavailable)
			return
		}
		if s.lies.Load() && r.Method != http.MethodGet && r.Method != http.MethodHead {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			s.refused.Add(1)
			http.Error(w, "InternalError", http.StatusInternalServerError)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// TestF12StoreAway: the store answers with errors, hangs, or is gone while outputs are to be stored. The job stays
// RUNNING (collecting) and completes when the store is back; new jobs with files are a 503 meanwhile. A job that waits
// too long fails with "storage": workflows.TestStoreAwayForTooLong, because a quarter of an hour is too long for here.
func TestF12StoreAway(t *testing.T) {
	beside(t)
	for _, name := range []string{"down", "hangs", "5xx", "lies"} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "down" {
				t.Skip("the long form has it")
			}
			w, s := newWorld(t), fakecomfy.New(t)
			w.gpu = doubles{s}
			w.secrets["the key of the store"] = []byte("the-secret-key-of-s3")
			gate := s.Hold("EmptyImage")
			ill := newSick(t, startS3(t))
			net := newLink(t, ill.Listener.Addr().String())
			w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL, "AWS_ACCESS_KEY_ID=access", "AWS_SECRET_ACCESS_KEY=the-secret-key-of-s3",
				"COMFYD_STORE_URL=s3://bkt?region=us-east-1&use_path_style=true&endpoint=http://"+net.addr)
			id := w.submit(noise(1))
			gate.Reached()
			away := time.Now()
			switch name {
			case "down":
				net.cut()
			case "hangs":
				net.stall()
			case "5xx":
				ill.ill.Store(true)
			case "lies":
				ill.lies.Store(true)
			}
			gate.Open()
			w.phase(id, func(e *Event) bool { return e.Body["phase"] == "collecting" }, "it collects")
			for time.Since(away) < 10*time.Second { // it goes on trying, and never ends
				require.Equal(t, "RUNNING", w.status(id).State())
				<-time.After(200 * time.Millisecond)
			}
			photo := map[string]any{"images": []any{map[string]any{"name": "photo.png", "image": base64.StdEncoding.EncodeToString(gradient(t))}}}
			load := strings.ReplaceAll(noise(2), `"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":0}`, `"class_type":"LoadImage","inputs":{"image":"photo.png"}`)
			e := w.send(job{graph: load, more: photo, key: "with a file"})
			require.Equal(t, http.StatusServiceUnavailable, e.Code, "%v %s", e.Body, e.Err)
			require.NotEmpty(t, e.Header.Get("Retry-After"))
			w.fired(net.hit() || ill.refused.Load() > 0, "the store was away ("+name+") while outputs were to be stored")
			healed := time.Now()
			ill.ill.Store(false)
			ill.lies.Store(false)
			net.heal()
			w.completes(id, 1)
			w.recovered("store away ("+name+") for 10 s and more, from its return on", healed, time.Since(healed))
			require.Equal(t, 1, s.TotalRuns(), "nothing is made again")
			e = w.send(job{graph: load, more: photo, key: "with a file"})
			require.Equal(t, http.StatusAccepted, e.Code, "%v", e.Body)
			w.completes(e.Job, 1)
			w.check()
		})
	}
}

// gradient is an input file, whose bytes must not be seen in logs or histories.
func gradient(t *testing.T) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "testdata", "inputs", "gradient.png"))
	require.NoError(t, err)
	return raw
}
