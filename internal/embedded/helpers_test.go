//go:build !noembedded

package embedded

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/internal/logs"
)

const testQueue = "test"

// stepsWorkflow runs activities that do nothing, one after the other.
func stepsWorkflow(ctx workflow.Context, steps int, each time.Duration) (int, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute, HeartbeatTimeout: 5 * time.Second,
	})
	done := 0
	for range steps {
		if err := workflow.ExecuteActivity(ctx, stepActivity, each).Get(ctx, nil); err != nil {
			return done, err
		}
		done++
	}
	return done, nil
}

func stepActivity(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// record is a log that tests read.
type record struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (r *record) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Split(strings.TrimSpace(r.out.String()), "\n")
}

func testOptions(t testing.TB) (Options, *record) {
	r := &record{}
	l := logs.New(logs.Options{Level: "warn", Format: logs.JSON, Out: r})
	return Options{
		DataDir: t.TempDir(), Listen: "127.0.0.1:0", Retention: 48 * time.Hour, Log: l,
		SearchAttributes: map[string]enums.IndexedValueType{"TestName": enums.INDEXED_VALUE_TYPE_KEYWORD},
	}, r
}

func start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return s
}

// dial connects a client that the test's end closes before the server stops.
func dial(t testing.TB, s *Server) client.Client {
	t.Helper()
	silent := logrus.New()
	silent.Level = logrus.PanicLevel
	c, err := client.DialContext(t.Context(), client.Options{HostPort: s.Address(), Logger: logs.Temporal(silent)})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func startWorker(t testing.TB, c client.Client) worker.Worker {
	t.Helper()
	w := worker.New(c, testQueue, worker.Options{})
	w.RegisterWorkflow(stepsWorkflow)
	w.RegisterActivity(stepActivity)
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	return w
}

func run(ctx context.Context, c client.Client, id string, steps int, each time.Duration) error {
	r, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: testQueue}, stepsWorkflow, steps, each)
	if err != nil {
		return err
	}
	var done int
	if err := r.Get(ctx, &done); err != nil {
		return err
	}
	if done != steps {
		return fmt.Errorf("%d of %d steps done", done, steps)
	}
	return nil
}
