package comfyhttp

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

func TestServerComesAndGoes(t *testing.T) {
	s := fakecomfy.New(t)
	s.Stop()
	b := open(t, Options{URLs: []string{s.URL + "/"}}, quick())
	p := newPrompt(t, solid(1))
	require.Equal(t, 2, b.Pool().Slots)
	require.Eventually(t, func() bool { return strings.Contains(b.Servers()[0].Problem, "refused") }, patience, time.Millisecond)
	e := errorOf(t, b.Ready(t.Context(), p), comfy.BackendUnavailable)
	require.Contains(t, e.Message, s.URL+": nothing listens there")
	errorOf(t, b.Probe(t.Context()), comfy.BackendUnavailable)
	errorOf(t, b.Refresh(t.Context()), comfy.BackendUnavailable)
	require.Nil(t, b.Servers()[0].Catalog)

	s.Start()
	require.Eventually(t, func() bool { return b.Ready(t.Context(), p) == nil }, patience, time.Millisecond)
	server := b.Servers()[0]
	require.Equal(t, "0.3.75-fake", server.Version)
	require.Equal(t, "cpu", server.Device)
	require.Equal(t, s.URL, server.Name)
	require.Empty(t, server.Problem)

	s.Stop()
	require.Eventually(t, func() bool { return b.Ready(t.Context(), p) != nil }, patience, time.Millisecond)
	require.NotNil(t, b.Servers()[0].Catalog)
}

// TestReadyAsksNobody: what is known decides, until it would refuse.
func TestReadyAsksNobody(t *testing.T) {
	f := setup(t, func(_ *Options, tm *timing) { tm.probe, tm.catalogFresh = time.Hour, time.Hour })
	asked := f.s.Requests("GET /object_info")
	for range 10 {
		require.NoError(t, f.b.Ready(t.Context(), f.prompt(solid(1))))
	}
	later := f.prompt(shows("InstalledLater"))
	e := errorOf(t, f.b.Ready(t.Context(), later), comfy.InvalidWorkflow)
	require.Contains(t, e.NodeErrors, "1")
	require.Equal(t, asked, f.s.Requests("GET /object_info"), "a young catalogue was asked for again")

	f.b.t.catalogFresh = 0
	errorOf(t, f.b.Ready(t.Context(), later), comfy.InvalidWorkflow)
	require.Equal(t, asked+1, f.s.Requests("GET /object_info"))
	over, end := context.WithCancel(t.Context())
	end()
	require.ErrorIs(t, f.b.Ready(over, later), context.Canceled, "who could not ask knows nothing new")
	f.s.AddOutput("InstalledLater", map[string]any{"text": []any{"x"}})
	require.NoError(t, f.b.Ready(t.Context(), later))
	f.succeeds(f.run(later, nil))
}

func TestCredentials(t *testing.T) {
	var written bytes.Buffer
	logger := logrus.New()
	logger.SetOutput(&written)
	logger.SetLevel(logrus.DebugLevel)
	s := fakecomfy.New(t)
	s.Login("ann", "p@ss:word")
	wrong := open(t, Options{URLs: []string{strings.Replace(s.URL, "//", "//ann:secret@", 1)}, Log: logger}, quick())
	errorOf(t, wrong.Probe(t.Context()), comfy.BackendUnavailable)
	require.Contains(t, wrong.Servers()[0].Problem, "401")
	require.NoError(t, wrong.Close())

	tm := quick()
	tm.probe = time.Hour
	b := open(t, Options{URLs: []string{strings.Replace(s.URL, "//", "//ann:p%40ss%3Aword@", 1)}, Log: logger}, tm)
	require.NoError(t, b.Probe(t.Context()))
	f := &fixture{T: t, s: s, b: b, rec: newRecorder()}
	out := f.succeeds(f.run(f.prompt(sockets("SaveImageWebsocket", 1)), nil))
	require.Len(t, out.Files, 1, "the socket needs them too")
	require.Equal(t, s.URL, out.Handle.Server)
	require.Equal(t, s.URL, b.Servers()[0].Name)
	s.Stop()
	err := b.Probe(t.Context())
	require.Error(t, err)
	require.NoError(t, b.Close())
	for _, text := range []string{err.Error(), written.String()} {
		require.NotContains(t, text, "secret")
		require.NotContains(t, text, "p@ss")
		require.NotContains(t, text, "p%40ss")
	}
}

func TestAddresses(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:8188", "ftp://x", "http://", "http://x?y=1", "http://user:secret@[::1", "ws://user:secret@h"} {
		_, err := New(Options{URLs: []string{bad}})
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "secret")
		require.Contains(t, err.Error(), "http://127.0.0.1:8188")
	}
	_, err := New(Options{})
	require.Error(t, err)
	_, err = New(Options{URLs: []string{"http://h:1", "http://me:x@h:1/"}})
	require.ErrorContains(t, err, "twice")
}

// TestBehindProxy: a path in front, TLS, and a redirect that is not followed.
func TestBehindProxy(t *testing.T) {
	s := fakecomfy.New(t)
	inner := http.StripPrefix("/comfy", proxy(s.URL))
	front := httptest.NewUnstartedServer(inner)
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.StartTLS()
	defer front.Close()
	tm := quick()
	tm.probe = time.Hour
	stranger := open(t, Options{URLs: []string{front.URL + "/comfy"}}, tm)
	errorOf(t, stranger.Probe(t.Context()), comfy.BackendUnavailable)
	require.Contains(t, stranger.Servers()[0].Problem, "certificate is not trusted")

	trusting := newTransport()
	trusting.TLSClientConfig.RootCAs = front.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	b, err := newBackend(Options{URLs: []string{front.URL + "/comfy"}}, tm, trusting)
	require.NoError(t, err)
	defer b.Close()
	require.NoError(t, b.Probe(t.Context()))
	f := &fixture{T: t, s: s, b: b, rec: newRecorder()}
	out := f.succeeds(f.run(f.prompt(sockets("SaveImageWebsocket", 1)), nil))
	require.Len(t, out.Files, 1)

	moved := httptest.NewServer(http.RedirectHandler(s.URL, http.StatusMovedPermanently))
	defer moved.Close()
	m := open(t, Options{URLs: []string{moved.URL}}, tm)
	errorOf(t, m.Probe(t.Context()), comfy.BackendUnavailable)
	require.Contains(t, m.Servers()[0].Problem, "redirects")

	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	defer page.Close()
	n := open(t, Options{URLs: []string{page.URL}}, tm)
	errorOf(t, n.Probe(t.Context()), comfy.BackendUnavailable)
	require.Contains(t, n.Servers()[0].Problem, "is the address right?")
}

// TestChoice: the fewest of our own prompts, by turns, and only where the nodes are.
func TestChoice(t *testing.T) {
	one, two := fakecomfy.New(t), fakecomfy.New(t)
	tm := quick()
	tm.catalogFresh = time.Hour
	two.AddOutput("OnlyOnTwo", map[string]any{"text": []any{"x"}})
	b := open(t, Options{URLs: []string{one.URL, two.URL}}, tm)
	require.NoError(t, b.Probe(t.Context()))
	require.Equal(t, 4, b.Pool().Slots)
	f := &fixture{T: t, s: one, b: b, rec: newRecorder()}
	var ends []chan result
	begin := func(graph string) {
		ends = append(ends, f.run(f.prompt(graph), nil))
		require.Eventually(t, func() bool { return len(one.Posted())+len(two.Posted()) == len(ends) }, patience, time.Millisecond)
	}
	gates := []*fakecomfy.Gate{one.Hold("SaveImage"), two.Hold("SaveImage"), two.Hold("OnlyOnTwo")}
	for range 2 {
		begin(shows("OnlyOnTwo"))
	}
	require.Len(t, two.Posted(), 2)
	for i := range 2 {
		begin(solid(i))
	}
	require.Len(t, one.Posted(), 2, "the one with less to do")
	for i := range 2 {
		begin(solid(10 + i))
	}
	require.Len(t, one.Posted(), 3, "by turns")
	require.Len(t, two.Posted(), 3)
	for _, g := range gates {
		g.Open()
	}
	for _, end := range ends {
		f.succeeds(end)
	}
	for _, s := range b.servers {
		require.Zero(t, s.inFlight)
	}
	for range 4 {
		f.succeeds(f.run(f.prompt(solid(1)), nil))
	}
	require.Len(t, one.Posted(), 5, "by turns")
	require.Len(t, two.Posted(), 5)

	one.Stop()
	require.Eventually(t, func() bool { return !b.Servers()[0].Healthy }, patience, time.Millisecond)
	f.succeeds(f.run(f.prompt(solid(9)), nil))
	require.Len(t, two.Posted(), 6)
}

// TestLocate finds a prompt whose server nobody remembers, beside one that is down.
func TestLocate(t *testing.T) {
	one, two, down := fakecomfy.New(t), fakecomfy.New(t), fakecomfy.New(t)
	down.Stop()
	b := open(t, Options{URLs: []string{one.URL, two.URL, down.URL}}, quick())
	require.NoError(t, b.Probe(t.Context()))
	f := &fixture{T: t, s: one, b: b, rec: newRecorder()}
	p := f.prompt(`{"1":{"class_type":"LoadImage","inputs":{"image":"a.png"}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`)
	p.Inputs = []backend.Input{input("a.png", fakePNG(f))}
	out := f.succeeds(f.run(p, nil))
	h := backend.Handle{PromptID: p.ID, JobID: p.JobID}
	f.rec = newRecorder()
	again := f.succeeds(f.run(p, &h))
	require.Equal(t, out.Files, again.Files)
	require.Equal(t, out.Handle.Server, again.Handle.Server)
	require.Equal(t, out.Handle.Inputs, f.rec.Handles()[0].Inputs)
	require.Equal(t, 1, one.Runs(p.ID)+two.Runs(p.ID))

	h.PromptID = f.prompt(solid(1)).ID
	e := f.fails(f.run(p, &h), comfy.BackendLost)
	require.False(t, e.Ran)
}

// TestRunBeforeTheFirstLook: a worker that has just started gets prompts before it knows its servers. It asks them first.
func TestRunBeforeTheFirstLook(t *testing.T) {
	s := fakecomfy.New(t)
	gate := s.HoldHTTP()
	f := &fixture{T: t, s: s, b: open(t, Options{URLs: []string{s.URL}}, quick()), rec: newRecorder()}
	end := f.run(f.prompt(solid(1)), nil)
	gate.Reached()
	gate.Open()
	f.succeeds(end)

	s.Stop()
	down := &fixture{T: t, s: s, b: open(t, Options{URLs: []string{s.URL}}, quick()), rec: newRecorder()}
	err := down.ends(down.run(down.prompt(solid(1)), nil)).err
	errorOf(t, err, comfy.BackendUnavailable)
	require.NotContains(t, err.Error(), "not asked yet")
}
