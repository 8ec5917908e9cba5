package fakemodal_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("FAKEMODAL_TEST_DIR"); dir != "" {
		serveUntilKilled(dir)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if deployed.dir != "" {
			_ = os.RemoveAll(deployed.dir)
		}
		os.Exit(code)
	}))
}

// serveUntilKilled is the process that TestNoProcessIsLeftOfAKilledServer kills.
func serveUntilKilled(dir string) {
	s, err := fakemodal.Start(fakemodal.Options{Dir: dir, Addr: os.Getenv("FAKEMODAL_TEST_ADDR"), Python: os.Getenv("COMFYD_TEST_MODAL_PYTHON")})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.URL())
	select {}
}

const testApp = "testdata/testapp.py"

func python(t *testing.T) string {
	p := os.Getenv("COMFYD_TEST_MODAL_PYTHON")
	if p == "" {
		t.Skip("COMFYD_TEST_MODAL_PYTHON is not set: it names a Python with modal 1.6.4 (make test sets it)")
	}
	return p
}

// deployed is a server's folder in which the test app is deployed already, made once.
var deployed struct {
	once sync.Once
	dir  string
	err  error
}

// world is a server with the test app, a Go client and the class's methods.
type world struct {
	*fakemodal.Server
	t      *testing.T
	opts   fakemodal.Options
	marks  string
	free   string // a file: sleeps of the app that were given it end when it is there
	client *modal.Client
}

func options(t *testing.T, dir string) fakemodal.Options {
	return fakemodal.Options{Dir: dir, Python: python(t), AppFile: testApp, Log: t.Logf,
		Secrets: map[string]map[string]string{"TESTAPP_SECRET": {"TESTAPP_SECRET": "s3cret"}}}
}

// testContext ends well before the tests' own deadline, and late enough for containers that start on a busy machine.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func newWorld(t *testing.T, change ...func(*fakemodal.Options)) *world {
	t.Helper()
	t.Parallel()
	deployed.once.Do(func() {
		if deployed.dir, deployed.err = os.MkdirTemp("", "fakemodal-test"); deployed.err != nil {
			return
		}
		opts := options(t, deployed.dir)
		s, err := fakemodal.Start(opts)
		if err != nil {
			deployed.err = err
			return
		}
		defer s.Stop()
		_, deployed.err = s.Deploy(testContext(t))
	})
	require.NoError(t, deployed.err)
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(deployed.dir)))
	notes := t.TempDir()
	w := &world{t: t, opts: options(t, dir), marks: filepath.Join(notes, "marks"), free: filepath.Join(notes, "free")}
	w.opts.Env = map[string]string{"TESTAPP_MARKS": w.marks}
	for _, c := range change {
		c(&w.opts)
	}
	w.start()
	t.Cleanup(func() { w.Stop() })
	w.client = w.connect()
	return w
}

func (w *world) start() {
	s, err := fakemodal.Start(w.opts)
	require.NoError(w.t, err)
	w.Server = s
	w.opts.Addr = s.Addr()
}

// environment guards the process's environment: the SDK takes a server's address from nowhere else.
var environment sync.Mutex

// maxThrottleWait is how long the SDK comes again where it is told to: longer than this process may be held up between
// two tries, because that counts too.
const maxThrottleWait = 8 * time.Second

// connect makes a Go client, as a process of its own would.
func (w *world) connect(interceptors ...grpc.UnaryClientInterceptor) *modal.Client {
	return w.connectAs(w.Env()["MODAL_TOKEN_ID"], w.Env()["MODAL_TOKEN_SECRET"], interceptors...)
}

func (w *world) connectAs(id, secret string, interceptors ...grpc.UnaryClientInterceptor) *modal.Client {
	environment.Lock()
	defer environment.Unlock()
	for k, v := range w.Env() {
		require.NoError(w.t, os.Setenv(k, v)) // Setenv of testing forbids parallel tests
	}
	wait := maxThrottleWait
	c, err := modal.NewClientWithOptions(&modal.ClientParams{TokenID: id, TokenSecret: secret, GRPCUnaryInterceptors: interceptors, MaxThrottleWait: &wait, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(w.t, err)
	w.t.Cleanup(c.Close)
	return c
}

// method looks a method of the class up, with options if any.
func (w *world) method(name string, options ...*modal.ClsWithOptionsParams) *modal.Function {
	w.t.Helper()
	cls, err := w.client.Cls.FromName(testContext(w.t), "testapp", "Worker", nil)
	require.NoError(w.t, err)
	for _, o := range options {
		cls = cls.WithOptions(o)
	}
	instance, err := cls.Instance(testContext(w.t), nil)
	require.NoError(w.t, err)
	f, err := instance.Method(name)
	require.NoError(w.t, err)
	return f
}

func (w *world) function(name string) *modal.Function {
	w.t.Helper()
	f, err := w.client.Functions.FromName(testContext(w.t), "testapp", name, nil)
	require.NoError(w.t, err)
	return f
}

func (w *world) spawn(f *modal.Function, args ...any) *modal.FunctionCall {
	w.t.Helper()
	fc, err := f.Spawn(testContext(w.t), args, nil)
	require.NoError(w.t, err)
	return fc
}

// run spawns a call and returns its result.
func (w *world) run(f *modal.Function, args ...any) any {
	w.t.Helper()
	v, err := w.spawn(f, args...).Get(testContext(w.t), nil)
	require.NoError(w.t, err)
	return v
}

// get returns how a call ends.
func (w *world) get(fc *modal.FunctionCall) (any, error) { return fc.Get(testContext(w.t), nil) }

// state waits until a call is in a state.
func (w *world) state(fc *modal.FunctionCall, state fakemodal.State) fakemodal.Call {
	w.t.Helper()
	c, err := w.WaitState(testContext(w.t), fc.FunctionCallID, state)
	require.NoError(w.t, err)
	return c
}

// release ends the sleeps that wait for it. Until then they may be counted on to go on, however long this process is held
// up.
func (w *world) release() {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(w.free, nil, 0o600))
}

// marked waits until the app has written a line n times.
func (w *world) marked(line string, n int) {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return w.count(line) >= n }, 2*time.Minute, 10*time.Millisecond, "no %d times %q in %q", n, line, w.lines())
}

func (w *world) lines() []string {
	data, err := os.ReadFile(w.marks)
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func (w *world) count(line string) int {
	n := 0
	for _, l := range w.lines() {
		if l == line {
			n++
		}
	}
	return n
}

func outcomes(c fakemodal.Call) []string {
	var all []string
	for _, a := range c.Attempts {
		all = append(all, a.Outcome)
	}
	return all
}
