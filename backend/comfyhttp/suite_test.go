package comfyhttp

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuiteOnDouble(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		s := fakecomfy.New(t)
		s.Step(3 * time.Millisecond)
		return open(t, Options{URLs: []string{s.URL}}, defaultTiming())
	})
}

func TestSuiteOnComfyUI(t *testing.T) {
	url := realComfyUI(t)
	backendtest.Run(t, func(t *testing.T) backend.Backend {
		return open(t, Options{URLs: []string{url}}, defaultTiming())
	})
}

func realComfyUI(t testing.TB) string {
	url := os.Getenv("COMFYD_TEST_COMFYUI")
	if url == "" {
		t.Skip("COMFYD_TEST_COMFYUI does not name a running ComfyUI")
	}
	return url
}

// open makes a backend of one pool that ends with the test.
func open(t testing.TB, o Options, tm timing) *Backend {
	t.Helper()
	o.Pool.Name, o.Pool.Kind = "test", "url"
	b, err := newBackend(o, tm, newTransport())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}
