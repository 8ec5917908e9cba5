package comfyhttp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// patience is how long what must happen is waited for: a machine may be slow, or stop for seconds.
const patience = time.Minute

// quick is timing for tests: everything happens soon, and nothing that should not happen does.
func quick() timing {
	t := defaultTiming()
	t.probe, t.catalogFresh = 20*time.Millisecond, 0
	t.pollFirst, t.pollMost, t.pollBlind = 5*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	t.queueQuiet, t.queueBlind, t.absent = 100*time.Millisecond, 40*time.Millisecond, 20*time.Millisecond
	t.refused, t.hung = 300*time.Millisecond, 600*time.Millisecond
	t.socketReady, t.socketAgain = 10*time.Second, 10*time.Millisecond
	t.frames, t.cancel, t.giveUp = 10*time.Second, 5*time.Millisecond, 5*time.Second
	return t
}

// fixture is a backend over one double.
type fixture struct {
	*testing.T
	s   *fakecomfy.Server
	b   *Backend
	rec *backendtest.Recorder
}

func setup(t *testing.T, change func(o *Options, tm *timing)) *fixture {
	s := fakecomfy.New(t)
	o, tm := Options{URLs: []string{s.URL}}, quick()
	if change != nil {
		change(&o, &tm)
	}
	f := &fixture{T: t, s: s, b: open(t, o, tm), rec: newRecorder()}
	require.NoError(t, f.b.Probe(t.Context()))
	return f
}

type result struct {
	out *backend.Outcome
	err error
}

// run starts a prompt, with a handle where h is set.
func (f *fixture) run(p *backend.Prompt, h *backend.Handle) chan result {
	end := make(chan result, 1)
	go func() {
		out, err := f.b.Run(f.Context(), p, h, f.rec)
		end <- result{out, err}
	}()
	return end
}

// started waits until the recorder has heard that the prompt runs.
func (f *fixture) started() {
	f.Helper()
	require.Eventually(f.T, func() bool {
		u := f.rec.Updates()
		return len(u) > 0 && u[len(u)-1].Running
	}, patience, time.Millisecond, "nobody said that the prompt runs")
}

func (f *fixture) ends(end chan result) result {
	f.Helper()
	select {
	case r := <-end:
		return r
	case <-time.After(2 * patience):
		require.FailNow(f.T, "the prompt did not end")
		return result{}
	}
}

func (f *fixture) succeeds(end chan result) *backend.Outcome {
	f.Helper()
	r := f.ends(end)
	require.NoError(f.T, r.err)
	return r.out
}

func (f *fixture) fails(end chan result, code comfy.Code) *backend.Error {
	f.Helper()
	return errorOf(f.T, f.ends(end).err, code)
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

// read opens a file and reads it to its end.
func (f *fixture) read(out *backend.Outcome, file backend.File) ([]byte, error) {
	f.Helper()
	body, _, err := f.b.Open(f.Context(), out.Handle, file)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (f *fixture) prompt(graph string) *backend.Prompt { return backendtest.Prompt(f.T, graph) }

func solid(rgb int) string {
	return fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":1,"color":%d}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"solid"}}}`, rgb)
}

// tiled takes so many steps of the double's slow node.
func tiled(steps int) string {
	return fmt.Sprintf(`{"1":{"class_type":"VAELoader","inputs":{"vae_name":"pixel_space"}},
		"2":{"class_type":"EmptyChromaRadianceLatentImage","inputs":{"width":64,"height":%d,"batch_size":1}},
		"3":{"class_type":"VAEDecodeTiled","inputs":{"samples":["2",0],"vae":["1",0],"tile_size":64,"overlap":16,"temporal_size":64,"temporal_overlap":8}},
		"4":{"class_type":"SaveImage","inputs":{"images":["3",0],"filename_prefix":"tiled"}}}`, steps*64)
}

func sockets(class string, batch int) string {
	return fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":%d,"color":1}},
		"9":{"class_type":"%s","inputs":{"images":["1",0]}}}`, batch, class)
}

func shows(class string) string {
	return `{"1":{"class_type":"` + class + `","inputs":{"source":"x"}}}`
}

func input(name string, data []byte) backend.Input {
	sum := sha256.Sum256(data)
	return backend.Input{Name: name, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data)),
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

func newRecorder() *backendtest.Recorder { return backendtest.NewRecorder() }

func newPrompt(t testing.TB, graph string) *backend.Prompt { return backendtest.Prompt(t, graph) }

// proxy hands requests on, sockets too.
func proxy(to string) http.Handler {
	u, _ := url.Parse(to)
	return httputil.NewSingleHostReverseProxy(u)
}
