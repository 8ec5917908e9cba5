package store_test

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/store"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(victimURL); url != "" {
		victim(url)
		return
	}
	goleak.VerifyTestMain(m,
		// The AWS SDK keeps its connections for the next call, and has no way to close them.
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// world is a store of one kind, and what tests do behind its back.
type world struct {
	*store.Store
	url string
	dir string // where its blobs lie as files
}

// each runs a test on every kind of store.
func each(t *testing.T, test func(t *testing.T, w world)) {
	t.Run("folder", func(t *testing.T) { test(t, newFolder(t)) })
	t.Run("s3", func(t *testing.T) { test(t, newBucket(t)) })
}

func newFolder(t testing.TB) world {
	dir := filepath.Join(t.TempDir(), "blobs")
	return world{Store: openStore(t, dir), url: dir, dir: dir}
}

func newBucket(t testing.TB) world {
	s := startS3(t)
	return world{Store: openStore(t, s.url(s.address)), url: s.url(s.address), dir: filepath.Join(s.dir, "bkt")}
}

func openStore(t testing.TB, url string) *store.Store {
	s, err := store.Open(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// s3 is a real S3 server (versitygw) with one bucket, "bkt".
type s3 struct {
	address, dir string
	process      *exec.Cmd
	ended        chan struct{}
}

func (s *s3) url(address string) string {
	return "s3://bkt?region=us-east-1&use_path_style=true&endpoint=http://" + address
}

// startS3 starts one. Between the choice of its port and its use, others may take it: a server that ends before it listens
// is started again, at another one.
func startS3(t testing.TB) *s3 {
	binary := os.Getenv("COMFYD_TEST_S3_SERVER")
	if binary == "" {
		t.Skip("COMFYD_TEST_S3_SERVER is not set: it names the S3 server (versitygw) that make test builds")
	}
	s := &s3{dir: t.TempDir()}
	require.NoError(t, os.Mkdir(filepath.Join(s.dir, "bkt"), 0o700))
	t.Setenv("AWS_ACCESS_KEY_ID", "access")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	var log strings.Builder
	asks := http.Client{Timeout: 10 * time.Second}
	for range 5 {
		s.address, s.ended = freeAddress(t), make(chan struct{})
		here := "/" + rand.Text() // which no other server that has the port knows
		s.process = exec.Command(binary, "--quiet", "--port", s.address, "--access", "access", "--secret", "secret", "--health", here, "posix", s.dir)
		s.process.Stdout, s.process.Stderr = &log, &log
		require.NoError(t, s.process.Start())
		go func() {
			defer close(s.ended)
			s.process.Wait()
		}()
		t.Cleanup(s.stop)
		require.Eventually(t, func() bool {
			resp, err := asks.Get("http://" + s.address + here)
			if err != nil {
				return s.over()
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK || s.over()
		}, time.Minute, 20*time.Millisecond, "the S3 server does not come up: %s", &log)
		if !s.over() {
			return s
		}
	}
	t.Fatalf("the S3 server ends: %s", &log)
	return nil
}

func (s *s3) stop() {
	s.process.Process.Kill()
	<-s.ended
}

func (s *s3) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func list(t testing.TB, s *store.Store, prefix string) (keys []string) {
	for b, err := range s.List(t.Context(), prefix) {
		require.NoError(t, err)
		keys = append(keys, b.Key)
	}
	return keys
}

func put(t testing.TB, s *store.Store, key, text string) comfy.Blob {
	b, err := s.Put(t.Context(), key, strings.NewReader(text))
	require.NoError(t, err)
	return b
}

func read(ctx context.Context, s *store.Store, key string, offset, length int64) (string, error) {
	r, err := s.Open(ctx, key, offset, length)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

// requireError holds an error to being the store's, and to saying whether it passes.
func requireError(t testing.TB, err error, temporary bool) *store.Error {
	t.Helper()
	var e *store.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, temporary, e.Temporary, "temporary: %v", err)
	require.Equal(t, e.Temporary, e.IsTemporary())
	return e
}

func openOnly(t testing.TB, url string) (*store.Store, error) {
	s, err := store.Open(t.Context(), url)
	if err == nil {
		s.Close()
	}
	return s, err
}
