package activities_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.uber.org/goleak"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/live"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// double is a Backend whose methods a test scripts.
type double struct {
	name  string // of the pool; empty means "url"
	slots int    // 0 means 2
	gpus  []string
	meter bool
	ready func() error
	run   func(ctx context.Context, p *backend.Prompt, h *backend.Handle, rec backend.Recorder) (*backend.Outcome, error)
	open  func(f backend.File) (io.ReadCloser, int64, error)
	// openCtx takes the place of open.
	openCtx func(ctx context.Context) (io.ReadCloser, int64, error)

	mu       sync.Mutex
	canceled []backend.Handle
	// cancelErr is what Cancel fails with.
	cancelErr error
	released  []backend.Handle
	// away is how often Release fails from now on.
	away int
}

func (d *double) Pool() backend.Pool {
	return backend.Pool{Name: cmp.Or(d.name, "url"), Kind: "url", Slots: cmp.Or(d.slots, 2), GPUs: d.gpus, Metered: d.meter}
}
func (d *double) Servers() []backend.Server     { return nil }
func (d *double) Refresh(context.Context) error { return nil }
func (d *double) Close() error                  { return nil }

func (d *double) Ready(context.Context, *backend.Prompt) error {
	if d.ready == nil {
		return nil
	}
	return d.ready()
}

func (d *double) Run(ctx context.Context, p *backend.Prompt, h *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
	return d.run(ctx, p, h, rec)
}

func (d *double) Cancel(_ context.Context, h backend.Handle) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.canceled = append(d.canceled, h)
	return d.cancelErr
}

func (d *double) Open(ctx context.Context, _ backend.Handle, f backend.File) (io.ReadCloser, int64, error) {
	if d.openCtx != nil {
		return d.openCtx(ctx)
	}
	return d.open(f)
}

func (d *double) Release(_ context.Context, h backend.Handle, _ []backend.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.released = append(d.released, h)
	if d.away--; d.away >= 0 {
		return errors.New("away")
	}
	return nil
}

var _ backend.Backend = (*double)(nil)

// memory is a Store.
type memory struct {
	mu    sync.Mutex
	blobs map[string][]byte
	err   error
	cut   bool // what is read breaks off

	touched []string
}

func (m *memory) PutHashed(_ context.Context, prefix string, r io.Reader) (comfy.Blob, error) {
	b, err := io.ReadAll(r)
	if err == nil {
		err = m.err
	}
	if err != nil {
		return comfy.Blob{}, err
	}
	sum := sha256.Sum256(b)
	key := prefix + hex.EncodeToString(sum[:])
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[key] = b
	return comfy.Blob{Key: key, Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])}, nil
}

func (m *memory) Open(_ context.Context, key string, _, _ int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	if m.cut {
		return io.NopCloser(io.MultiReader(bytes.NewReader(b[:len(b)/2]), iotest.ErrReader(io.ErrUnexpectedEOF))), nil
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (m *memory) Stat(_ context.Context, key string) (comfy.Blob, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[key]
	if !ok {
		return comfy.Blob{}, fs.ErrNotExist
	}
	return comfy.Blob{Key: key, Size: int64(len(b))}, m.err
}

func (m *memory) Touch(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.touched = append(m.touched, key)
	return nil
}

// bench is one set of activities over doubles, in Temporal's test environment.
type bench struct {
	env    *testsuite.TestActivityEnvironment
	double *double
	store  *memory
	closed bool          // what Temporal says of the job
	ahead  time.Duration // the worker's clock
	log    *logtest.Hook
	all    *activities.Activities
	others []backend.Pool // that other workers serve
	live   *live.Hub

	owners map[string]string // of other jobs, for a child that names their outputs; empty: of a child
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return newBenchWith(t, func(*activities.Options) {})
}

// newBenchWith changes the options before they are used.
func newBenchWith(t *testing.T, change func(*activities.Options)) *bench {
	t.Helper()
	b := &bench{double: &double{}, store: &memory{blobs: map[string][]byte{}}, live: live.NewHub("http://worker:1")}
	log, hook := logtest.NewNullLogger()
	b.log = hook
	o := activities.Options{
		ChildTenant: "alice", Callable: func(address string) error {
			if strings.Contains(address, "10.0.0.1") {
				return errors.New("10.0.0.1 is not a public address")
			}
			return nil
		},
		Owner: func(_ context.Context, id string) (string, bool, error) {
			tenant, found := b.owners[id]
			return tenant, found, nil
		},
		Backends: []backend.Backend{b.double}, Store: b.store, Live: b.live, Log: log, Wait: time.Second,
		Limits:    activities.Limits{Start: time.Hour, Run: time.Hour, Stall: time.Minute},
		Closed:    func(context.Context, activities.Execution) (bool, error) { return b.closed, nil },
		Now:       func() time.Time { return time.Now().Add(b.ahead) },
		Elsewhere: func(context.Context) ([]backend.Pool, error) { return b.others, nil },
	}
	change(&o)
	b.all = activities.New(o)
	b.env = b.beside().env
	t.Cleanup(func() { b.all.Close(context.Background()) })
	return b
}

// beside is a bench of the same activities for one that runs beside others: the SDK's environment is not for several.
func (b *bench) beside() *bench {
	var suite testsuite.WorkflowTestSuite
	other := *b
	other.env = suite.NewTestActivityEnvironment()
	for name, f := range map[string]any{comfy.ActivityLook: b.all.Look, comfy.ActivityWarmUp: b.all.WarmUp, comfy.ActivityPrompt: b.all.Prompt, comfy.ActivityStop: b.all.Stop, comfy.ActivityCollect: b.all.Collect} {
		other.env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
	return &other
}

func (b *bench) do(t *testing.T, name string, in, out any) error {
	t.Helper()
	v, err := b.env.ExecuteActivity(name, in)
	if err != nil {
		return err
	}
	if out != nil && v.HasValue() {
		require.NoError(t, v.Get(out))
	}
	return nil
}

// failure reads an activity's typed error.
func failure(t *testing.T, err error) (f activities.Failure, final bool) {
	t.Helper()
	var app *temporal.ApplicationError
	require.True(t, errors.As(err, &app), "an application error, not %v", err)
	require.NoError(t, app.Details(&f))
	require.Equal(t, string(f.Code), app.Type())
	return f, app.NonRetryable()
}
