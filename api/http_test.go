package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// raw sends bytes and reads the responses that come back until the server closes, or until n have come.
func (h *harness) raw(n int, text string) []answer {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.addr)
	require.NoError(h.t, err)
	defer conn.Close()
	require.NoError(h.t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(conn, text)
	require.NoError(h.t, err)
	var answers []answer
	r := bufio.NewReader(conn)
	for len(answers) < n {
		resp, err := http.ReadResponse(r, nil)
		require.NoError(h.t, err, "after %d answers", len(answers))
		answers = append(answers, h.read(resp))
	}
	return answers
}

func TestErrorsAreJSONWhateverTheLibrarySays(t *testing.T) {
	h := newHarness(t)
	auth := "Authorization: Bearer " + keyA + "\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
		code    Code
	}{
		"unknown address":  {"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", 404, CodeNotFound},
		"no such file":     {"GET /web/x/app.js HTTP/1.1\r\nHost: x\r\n\r\n", 404, CodeNotFound},
		"wrong case":       {"GET /STATUS/x HTTP/1.1\r\nHost: x\r\n\r\n", 404, CodeNotFound},
		"wrong method":     {"GET /submit_workflow HTTP/1.1\r\nHost: x\r\n\r\n", 405, CodeMethodNotAllowed},
		"unknown method":   {"BREW /status/x HTTP/1.1\r\nHost: x\r\n\r\n", 405, CodeMethodNotAllowed},
		"OPTIONS":          {"OPTIONS /status/x HTTP/1.1\r\nHost: x\r\nOrigin: https://evil\r\nAccess-Control-Request-Method: GET\r\n\r\n", 405, CodeMethodNotAllowed},
		"no HTTP":          {"hello\r\n\r\n", 400, CodeInvalidRequest},
		"no host":          {"GET /healthz HTTP/1.1\r\n\r\n", 400, CodeInvalidRequest},
		"header, no colon": {"GET /healthz HTTP/1.1\r\nHost: x\r\nbroken\r\n\r\n", 400, CodeInvalidRequest},
		"two lengths":      {"POST /submit_workflow HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, CodeInvalidRequest},
		"huge headers":     {"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2*headerLimit) + "\r\n\r\n", 431, CodeHeadersTooLarge},
		"no type":          {"POST /submit_workflow HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Length: 2\r\n\r\n{}", 415, CodeUnsupportedMedia},
		"a form":           {"POST /submit_workflow HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n\r\n{}", 415, CodeUnsupportedMedia},
		"gzip":             {"POST /submit_workflow HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415, CodeUnsupportedMedia},
		"no body":          {"POST /submit_workflow HTTP/1.1\r\nHost: x\r\n" + auth + "Content-Type: application/json\r\n\r\n", 400, CodeInvalidRequest},
		"no key":           {"GET /status/x HTTP/1.1\r\nHost: x\r\n\r\n", 401, CodeUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			a := h.raw(1, c.request)[0]
			h.requireError(a, c.status, c.code)
			require.Equal(t, "application/json", a.header.Get("Content-Type"))
			require.NotContains(t, string(a.raw), "broken", "no bytes of the request")
			if c.status == 405 {
				require.NotEmpty(t, a.header.Get("Allow"))
			}
		})
	}
}

func TestAuth(t *testing.T) {
	h := newHarness(t)
	var bodies []string
	for _, value := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "Basic " + keyA, keyA, "Bearer " + keyA + "x", "Bearer " + keyA[:5]} {
		for _, call := range [][2]string{{"POST", "/submit_workflow"}, {"GET", "/status/x"}, {"GET", "/jobs/x"}, {"POST", "/cancel/x"}, {"POST", "/inputs"}, {"GET", "/outputs/x/y/z"}} {
			a := h.do(call[0], call[1], "", "Authorization", value)
			h.requireError(a, 401, CodeUnauthorized)
			require.Equal(t, `Bearer realm="comfyd"`, a.header.Get("WWW-Authenticate"))
			bodies = append(bodies, string(a.raw))
		}
	}
	for _, b := range bodies {
		require.Equal(t, bodies[0], b, "one answer for all")
	}
	require.Equal(t, 404, h.do("GET", "/status/x", "", "Authorization", "bearer  "+keyA).status, "the scheme in any case")
	require.NotContains(t, h.log.String(), keyA)
}

func TestPanics(t *testing.T) {
	h := newHarness(t)
	h.catalogs.panics = true
	a := h.submit(`{"workflow":` + graphJSON + `}`)
	h.requireError(a, 500, CodeInternal)
	require.NotContains(t, string(a.raw), "secret detail")
	require.Contains(t, h.log.String(), "a handler panicked: secret detail")
	require.Contains(t, h.log.String(), "goroutine")
	require.Equal(t, 200, h.do("GET", "/healthz", "").status)
}

func TestRequestID(t *testing.T) {
	h := newHarness(t)
	require.Equal(t, "abc.1", h.do("GET", "/healthz", "", "X-Request-Id", "abc.1").header.Get("X-Request-Id"))
	made := h.do("GET", "/healthz", "", "X-Request-Id", "a b\"").header.Get("X-Request-Id")
	require.Len(t, made, 36)
	require.Contains(t, h.log.String(), made)
	require.Equal(t, 404, h.do("GET", "/status/some-call", "").status)
	require.Contains(t, h.log.String(), "call_id=some-call")
}

func TestCORS(t *testing.T) {
	h := newHarness(t)
	require.Empty(t, h.do("GET", "/healthz", "", "Origin", "https://app.example").header.Get("Access-Control-Allow-Origin"), "off by default")
	h = newHarness(t, func(o *Options) { o.CORSOrigins = []string{"https://app.example"} })
	require.Equal(t, "https://app.example", h.do("GET", "/status/x", "", "Origin", "https://app.example", "Authorization", "").header.Get("Access-Control-Allow-Origin"), "errors too")
	require.Empty(t, h.do("GET", "/healthz", "", "Origin", "https://evil.example").header.Get("Access-Control-Allow-Origin"))
	pre := h.do("OPTIONS", "/submit_workflow", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST", "Authorization", "")
	require.Equal(t, 204, pre.status)
	require.Contains(t, pre.header.Get("Access-Control-Allow-Headers"), "Idempotency-Key")
}

func TestAddressesBehindAProxy(t *testing.T) {
	link := func(h *harness) string {
		return h.submit(`{"workflow":`+graphJSON+`}`, "X-Forwarded-Proto", "https", "X-Forwarded-Host", "public.example").body["status_url"].(string)
	}
	h := newHarness(t)
	require.Contains(t, link(h), "http://"+h.addr, "nobody is believed by default")
	require.Contains(t, link(newHarness(t, func(o *Options) { o.TrustedProxies = []string{"127.0.0.0/8"} })), "https://public.example/status/")
	require.Contains(t, link(newHarness(t, func(o *Options) { o.PublicURL = "https://c.example/comfy/" })), "https://c.example/comfy/status/")
}

func TestHealth(t *testing.T) {
	h := newHarness(t)
	a := h.do("GET", "/healthz", "", "Authorization", "")
	require.Equal(t, 200, a.status)
	require.Equal(t, "test", a.body["version"])
	now := time.Now()
	h.setClock(now)
	ready := func() answer {
		now = now.Add(readyFor)
		h.setClock(now)
		return h.do("GET", "/readyz", "", "Authorization", "")
	}
	a = ready()
	require.Equal(t, 200, a.status, "%s", a.raw)
	require.JSONEq(t, `{"status":"ok","temporal":{"ok":true},"store":{"ok":true},"backend":{"ok":true},"disk":{"ok":true}}`, string(a.raw))
	h.catalogs.dead = io.ErrClosedPipe
	require.Equal(t, 200, h.do("GET", "/readyz", "").status, "remembered for a second")
	a = ready()
	require.Equal(t, 503, a.status)
	require.Equal(t, false, a.body["backend"].(map[string]any)["ok"])
	require.NotContains(t, string(a.raw), io.ErrClosedPipe.Error())
	said := func() int {
		return strings.Count(h.log.String(), "not ready: No backend is alive; jobs are accepted and wait.\" error=\""+io.ErrClosedPipe.Error())
	}
	require.Equal(t, 1, said(), "the log says why: %s", h.log)
	ready()
	require.Equal(t, 1, said())
	now = now.Add(sayAgain)
	ready()
	require.Equal(t, 2, said(), "and again after a while")
	h.catalogs.dead = nil
	ready()
	h.catalogs.dead = io.ErrClosedPipe
	ready()
	require.Equal(t, 3, said(), "and when it is down anew")
	h.catalogs.dead, h.store.err = nil, io.ErrClosedPipe
	require.Equal(t, false, ready().body["store"].(map[string]any)["ok"])
	h.store.err = nil
	h.temporal.fail(io.ErrClosedPipe)
	require.Equal(t, false, ready().body["temporal"].(map[string]any)["ok"])
	h.temporal.fail(nil)
	require.Equal(t, 200, ready().status)
	h.server.Leave()
	a = ready()
	require.Equal(t, 503, a.status)
	require.Equal(t, "stopping", a.body["status"])
	require.Equal(t, 200, h.do("GET", "/healthz", "").status, "it goes on serving")
	h.server.leaving.Store(false)
	h.server.drain()
	require.Equal(t, 503, ready().status)
}

func TestOptions(t *testing.T) {
	good := func() Options {
		h := newHarness(t)
		return h.server.opts
	}
	for name, change := range map[string]func(*Options){
		"no keys":     func(o *Options) { o.Keys = nil },
		"empty key":   func(o *Options) { o.Keys[0].Secret = "" },
		"tenant":      func(o *Options) { o.Keys[0].Tenant = "../x" },
		"default":     func(o *Options) { o.DefaultTenant = "a/b" },
		"signing key": func(o *Options) { o.SigningKey = []byte("short") },
		"public URL":  func(o *Options) { o.PublicURL = "example.com" },
		"origin":      func(o *Options) { o.CORSOrigins = []string{"example.com"} },
		"store":       func(o *Options) { o.Store = nil },
	} {
		o := good()
		change(&o)
		_, err := New(o)
		require.ErrorContains(t, err, "api: ", name)
	}
}

func TestShutdownDoesNotWaitForIdleConnections(t *testing.T) {
	h := newHarness(t)
	require.Equal(t, 200, h.do("GET", "/healthz", "").status)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	start := time.Now()
	require.NoError(t, h.server.Shutdown(ctx))
	require.Less(t, time.Since(start), idleTimeout/4)
}

func TestServeAfterShutdown(t *testing.T) {
	h := newHarness(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, h.server.Shutdown(ctx))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, h.server.Serve(l))
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// gatedListener holds its server up on the way to accepting.
type gatedListener struct {
	net.Listener
	reached, gate chan struct{}
	once          sync.Once
}

func (g *gatedListener) Addr() net.Addr {
	g.once.Do(func() { close(g.reached) })
	<-g.gate
	return g.Listener.Addr()
}

func TestShutdownWhileServing(t *testing.T) {
	h := newHarness(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	gated := &gatedListener{Listener: l, reached: make(chan struct{}), gate: make(chan struct{})}
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(gated) }()
	<-gated.reached
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, h.server.Shutdown(ctx))
	close(gated.gate)
	select {
	case err := <-served:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		require.NoError(t, l.Close())
		t.Fatal("goes on serving after Shutdown")
	}
}
