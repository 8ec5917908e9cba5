package modal

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakemodal"
)

const testApp = "scripted"

// patience is for what certainly comes, on a busy machine too.
const patience = 5 * time.Minute

// long is for calls that a test ends before their time is up. In seconds, as the app takes them.
const long = 600

// quick is timing for tests: what is waited for comes soon, and nothing that should not happen does. How long Ready waits
// for an answer is the exception: tests count on that it comes.
func quick() timing {
	t := defaultTiming()
	t.look, t.lookSick, t.catalogFresh, t.catalogAgain = 200*time.Millisecond, 50*time.Millisecond, 2*time.Second, 200*time.Millisecond
	t.poll, t.channel, t.again, t.againMost, t.gone = 2*time.Second, 2*time.Second, 20*time.Millisecond, 200*time.Millisecond, 50*time.Millisecond
	t.throttle, t.graph, t.stats, t.aside = 300*time.Millisecond, 300*time.Millisecond, 100*time.Millisecond, 300*time.Millisecond
	t.cancelAgain, t.terminate = 500*time.Millisecond, 3*time.Second
	t.statsWait, t.catalogWait = time.Minute, time.Minute
	return t
}

func python(t testing.TB) string {
	p := os.Getenv("COMFYD_TEST_MODAL_PYTHON")
	if p == "" {
		t.Skip("COMFYD_TEST_MODAL_PYTHON is not set: it names a Python with modal 1.6.4 (make test sets it)")
	}
	return p
}

// made is the folder of a fake on which the scripted app is deployed, for all tests.
var made struct {
	sync.Once
	dir string
	err error
}

func deployed(t *testing.T) string {
	made.Do(func() {
		if made.dir, made.err = os.MkdirTemp("", "modal-test"); made.err != nil {
			return
		}
		var s *fakemodal.Server
		if s, made.err = fakemodal.Start(scripted(made.dir)); made.err != nil {
			return
		}
		defer s.Stop()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, made.err = s.Deploy(ctx)
	})
	require.NoError(t, made.err)
	return made.dir
}

func scripted(dir string) fakemodal.Options {
	return fakemodal.Options{Dir: dir, Python: os.Getenv("COMFYD_TEST_MODAL_PYTHON"), AppFile: "testdata/scripted.py", DeployEnv: map[string]string{"MODAL_APP": testApp}}
}

// world is a fake of Modal with the scripted app, and a backend over it.
type world struct {
	*testing.T
	m   *fakemodal.Server
	b   *Backend
	rec *backendtest.Recorder
	log *logtest.Hook
}

// newWorld starts both. Before the backend is there, prepare may break what it likes.
func newWorld(t *testing.T, change func(o *fakemodal.Options), prepare ...func(m *fakemodal.Server, o *Options, tm *timing)) *world {
	t.Helper()
	python(t)
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(deployed(t))))
	fo := scripted(dir)
	fo.Log = t.Logf
	if change != nil {
		change(&fo)
	}
	m, err := fakemodal.Start(fo)
	require.NoError(t, err)
	t.Cleanup(m.Stop)
	for k, v := range m.Env() {
		t.Setenv(k, v)
	}
	o, tm := Options{App: testApp, GPUs: []string{"L40S", "H100"}, Log: logTo(t)}, quick()
	for _, p := range prepare {
		p(m, &o, &tm)
	}
	w := &world{T: t, m: m, rec: backendtest.NewRecorder(), log: logtest.NewLocal(o.Log.(*logrus.Logger))}
	w.b = w.backend(o, tm)
	return w
}

// backend makes a backend, as a process of its own would, that ends with the test.
func (w *world) backend(o Options, tm timing) *Backend {
	w.Helper()
	b, err := newBackend(o, tm)
	require.NoError(w, err)
	w.Cleanup(func() { require.NoError(w, b.Close()) })
	return b
}

// another is a second worker.
func (w *world) another() *Backend { return w.backend(w.b.o, w.b.t) }

func logTo(t testing.TB) *logrus.Logger {
	l := logrus.New()
	l.SetLevel(logrus.DebugLevel)
	l.SetOutput(testWriter{t})
	return l
}

// said tells whether a backend has written this line.
func (w *world) said(line string) bool {
	for _, e := range w.log.AllEntries() {
		if strings.HasPrefix(e.Message, line) {
			return true
		}
	}
	return false
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	w.Cleanup(cancel)
	return ctx
}

// well waits until the backend has found the app, and its catalogue.
func (w *world) well(b *Backend) {
	w.Helper()
	require.Eventually(w, func() bool { return b.Servers()[0].Healthy && b.known() != nil }, patience, 10*time.Millisecond, "%+v", b.Servers()[0].Problem)
}

// ready waits until the backend takes prompts.
func (w *world) ready(b *Backend) {
	w.Helper()
	w.well(b)
	var err error
	require.Eventually(w, func() bool { err = b.Ready(w.ctx(), w.prompt(nil)); return err == nil }, patience, 20*time.Millisecond, "%v", err)
}

const smallGraph = `{"1":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":1,"color":7}},
	"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"x"}}}`

type script map[string]any

// prompt is one with which the scripted app does what is said.
func (w *world) prompt(do script) *backend.Prompt {
	w.Helper()
	p := backendtest.Prompt(w, smallGraph)
	if do != nil {
		text, err := json.Marshal(do)
		require.NoError(w, err)
		p.JobID = string(text)
	}
	return p
}

// held is a prompt whose call shows progress and then runs until let is called: what a test does meanwhile, it does to a
// call that runs, however long this process is held up.
func (w *world) held(do script) (p *backend.Prompt, let func()) {
	w.Helper()
	free := filepath.Join(w.TempDir(), "free")
	all := script{"until": free}
	maps.Copy(all, do)
	return w.prompt(all), func() { require.NoError(w, os.WriteFile(free, nil, 0o600)) }
}

type result struct {
	out *backend.Outcome
	err error
}

// run starts a prompt on the world's backend.
func (w *world) run(ctx context.Context, p *backend.Prompt, h *backend.Handle) chan result {
	return runOn(ctx, w.b, p, h, w.rec)
}

func runOn(ctx context.Context, b *Backend, p *backend.Prompt, h *backend.Handle, rec backend.Recorder) chan result {
	end := make(chan result, 1)
	go func() {
		out, err := b.Run(ctx, p, h, rec)
		end <- result{out, err}
	}()
	return end
}

func (w *world) ends(end chan result) result {
	w.Helper()
	select {
	case r := <-end:
		return r
	case <-time.After(patience):
		require.FailNow(w, "the prompt did not end")
		return result{}
	}
}

func (w *world) succeeds(end chan result) *backend.Outcome {
	w.Helper()
	r := w.ends(end)
	require.NoError(w, r.err)
	return r.out
}

func (w *world) fails(end chan result, code comfy.Code) *backend.Error {
	w.Helper()
	return errorOf(w, w.ends(end).err, code)
}

func errorOf(t testing.TB, err error, code comfy.Code) *backend.Error {
	t.Helper()
	require.Error(t, err)
	var e *backend.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code, "%v", err)
	require.NotEmpty(t, e.Message)
	return e
}

// running waits until the recorder has heard that the prompt runs, and returns its call.
func (w *world) running() string {
	w.Helper()
	require.Eventually(w, func() bool {
		u := w.rec.Updates()
		return len(u) > 0 && u[len(u)-1].Running
	}, patience, 5*time.Millisecond, "nobody said that the prompt runs")
	return w.call()
}

// call waits for the recorded handle's call.
func (w *world) call() string {
	w.Helper()
	var id string
	require.Eventually(w, func() bool {
		if h := w.rec.Handles(); len(h) > 0 {
			id = h[len(h)-1].CallID
		}
		return id != ""
	}, patience, 5*time.Millisecond, "no call was made")
	return id
}

// calls are the calls of a method that the fake has seen.
func (w *world) calls(method string) (found []fakemodal.Call) {
	for _, c := range w.m.Calls() {
		if c.Method == method || (c.Method == "" && c.Function == method) {
			found = append(found, c)
		}
	}
	return found
}

// executions counts how often a container has begun a prompt.
func (w *world) executions() (n int) {
	for _, c := range w.calls("run") {
		n += len(c.Attempts)
	}
	return n
}

// read opens a file of an outcome and reads it to its end.
func (w *world) read(b *Backend, out *backend.Outcome) ([]byte, error) {
	w.Helper()
	body, size, err := b.Open(w.ctx(), out.Handle, out.Files[0])
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err == nil {
		require.EqualValues(w, size, len(data))
	}
	return data, err
}
