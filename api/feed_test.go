package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/live"
)

// TestEventsAreForTheOwner: by key or by the link that the owner was given, and for nobody else.
func TestEventsAreForTheOwner(t *testing.T) {
	h := newHarness(t)
	h.setClock(time.Now()) // links are the same in each answer
	accepted := h.submit(`{"workflow":` + graphJSON + `}`)
	id, link := accepted.body["id"].(string), accepted.body["events_url"].(string)
	require.Equal(t, link, h.do("GET", "/status/"+id, "").body["events_url"])
	h.listen(link, "Authorization", "").next("status")
	for name, c := range map[string]struct {
		path, key string
		status    int
		code      Code
	}{
		"no key":           {"/events/" + id, "", 401, CodeUnauthorized},
		"another tenant":   {"/events/" + id, "Bearer " + keyB, 404, CodeNotFound},
		"no such job":      {"/events/nope", "Bearer " + keyA, 404, CodeNotFound},
		"a forged link":    {strings.Replace(link, "signature=", "signature=x", 1), "", 403, CodeInvalidLink},
		"of another job":   {strings.Replace(link, id, "nope", 1), "", 403, CodeInvalidLink},
		"half a link":      {"/events/" + id + "?signature=x", "", 403, CodeInvalidLink},
		"a broken address": {"/events/%zz", "Bearer " + keyA, 404, CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			if name == "a broken address" {
				h.requireError(rawGet(t, h, c.path, keyA), c.status, c.code)
				return
			}
			h.requireError(h.do("GET", c.path, "", "Authorization", c.key), c.status, c.code)
		})
	}
	h.t = t
	h.setClock(time.Now().Add(25 * time.Hour))
	h.requireError(h.do("GET", link, "", "Authorization", ""), 403, CodeLinkExpired)
	head := h.do("HEAD", "/events/"+id, "")
	require.Equal(t, 200, head.status)
	require.Equal(t, "text/event-stream", head.header.Get("Content-Type"))
}

// TestManyListenersCostOne: five hundred listeners are one long poll, one look at Temporal a second and one subscription,
// and all of them have the end.
func TestManyListenersCostOne(t *testing.T) {
	const many = 500
	h, hub := hearing(t, nil, quietLog)
	id, run := h.submitted()
	h.beats(run, &heartbeat{Handle: &backend.Handle{Pool: "url", Submission: 1}})
	all := make([]*streamed, many)
	before := h.temporal.describes.Load()
	began := time.Now()
	for i := range all {
		all[i] = h.listen("/events/" + id)
		all[i].next("status")
	}
	require.Equal(t, many, h.server.EventStreams())
	require.Len(t, h.server.feeds.byRun, 1)
	require.LessOrEqual(t, h.temporal.gets.Load(), int64(time.Since(began)/h.server.patience.poll)+1, "long polls at Temporal, one after the other")
	source := hub.Begin(id)
	source.Publish(progress(0.5))
	for _, s := range all {
		s.until("progress", func(kind string, body map[string]any) bool { return kind == "status" && body["phase"] == "running" })
	}
	// A connection looks by itself, too, but takes what was read a moment ago.
	looks := h.temporal.describes.Load() - before
	require.LessOrEqual(t, looks, int64(time.Since(began)/openFor)+2)
	source.End()
	h.complete(run, []byte("one"))
	for _, s := range all {
		s.until("the end", func(kind string, _ map[string]any) bool { return kind == "done" })
		s.ends()
	}
	require.Eventually(t, func() bool { return h.server.EventStreams() == 0 }, 30*time.Second, time.Millisecond)
}

// TestTooManyStreams: of one tenant; another's are its own, and a stream that has ended counts no more.
func TestTooManyStreams(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.MaxEventStreamsPerTenant = 2 })
	id, run := h.submitted()
	theirs := h.do("POST", "/submit_workflow", `{"workflow":`+graphJSON+`}`, "Authorization", "Bearer "+keyB).body["id"].(string)
	first, _ := h.listen("/events/"+id), h.listen("/events/"+id)
	refused := h.do("GET", "/events/"+id, "")
	h.requireError(refused, 429, CodeRateLimited)
	require.Contains(t, refused.body["error"], "2 event streams")
	require.NotEmpty(t, refused.header.Get("Retry-After"))
	h.listen("/events/"+theirs, "Authorization", "Bearer "+keyB)
	h.complete(run)
	first.until("the end", func(kind string, _ map[string]any) bool { return kind == "done" })
	require.Eventually(t, func() bool { return h.server.EventStreams() == 1 }, 30*time.Second, time.Millisecond)
	h.listen("/events/" + id).next("done")
}

// rawStream opens a stream on a connection that nobody reads.
func rawStream(t *testing.T, h *harness, id string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", h.addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
	_, err = fmt.Fprintf(conn, "GET /events/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", id, keyA)
	require.NoError(t, err)
	return conn.(*net.TCPConn)
}

// TestStreamsThatNobodyReads are dropped, and those who read notice nothing.
func TestStreamsThatNobodyReads(t *testing.T) {
	h, hub := hearing(t, func(s *Server) { s.streamStall = 3 * time.Second })
	id, _ := h.submitted()
	reader := h.listen("/events/" + id)
	for range 20 {
		rawStream(t, h, id)
	}
	require.Eventually(t, func() bool { return h.server.EventStreams() == 21 }, 30*time.Second, time.Millisecond)
	source := hub.Begin(id)
	defer source.End()
	picture := live.News{Preview: &backend.Preview{NodeID: "1", ContentType: "image/png", Data: bytes.Repeat([]byte("x"), 500<<10)}}
	for limit := time.Now().Add(2 * time.Minute); h.server.EventStreams() > 1; {
		require.True(t, time.Now().Before(limit), "%d streams are left", h.server.EventStreams())
		source.Publish(picture)
		reader.until("a preview", func(kind string, _ map[string]any) bool { return kind == "preview" })
	}
}

// TestKeepAlive: a stream that has nothing to say says so.
func TestKeepAlive(t *testing.T) {
	h := newTunedHarness(t, func(s *Server) { s.keepAlive = 20 * time.Millisecond })
	id, _ := h.submitted()
	lines := bufio.NewScanner(rawStream(t, h, id))
	seen := map[string]bool{}
	for !seen[": keep-alive"] {
		require.True(t, lines.Scan(), "%v", seen)
		seen[lines.Text()] = true
	}
	require.True(t, seen["retry: 1000"])
}

// TestStreamsEndWithTheServer: at once and properly, so that clients connect again, elsewhere.
func TestStreamsEndWithTheServer(t *testing.T) {
	h := newHarness(t)
	id, _ := h.submitted()
	s := h.listen("/events/" + id)
	s.next("status")
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, h.server.Shutdown(ctx))
	require.Less(t, time.Since(began), 30*time.Second)
	s.ends()
}

// TestEventsByTemporalAlone: without a word from a worker there is Temporal's view, and a Temporal that does not answer
// ends no stream.
func TestEventsByTemporalAlone(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	s := h.listen("/events/" + id)
	s.next("status")
	beat := &heartbeat{Handle: &backend.Handle{Pool: "url", Submission: 1}, Update: progress(0.5).Update}
	h.beats(run, beat)
	_, body := s.next("status")
	require.Equal(t, "running", body["phase"])
	require.Equal(t, 0.5, body["progress"].(map[string]any)["value"])
	h.temporal.fail(io.ErrUnexpectedEOF)
	beat.Update = progress(0.75).Update
	h.beats(run, beat)
	asked := h.temporal.describes.Load()
	require.Eventually(t, func() bool { return h.temporal.describes.Load() >= asked+2 }, 30*time.Second, time.Millisecond)
	h.temporal.fail(nil)
	_, body = s.next("status")
	require.Equal(t, 0.75, body["progress"].(map[string]any)["value"])
	h.temporal.set(id, nil)
	s.ends() // without an end that would not be true
}

// TestEventsFromAnotherProcess: a heartbeat says where the worker is to be followed. One that dies takes nothing with it.
func TestEventsFromAnotherProcess(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	theirs := live.NewHub("http://" + l.Addr().String())
	server := &httptest.Server{Listener: l, Config: theirs.Server()}
	server.Start()
	defer server.Close()
	h, _ := hearing(t, nil)
	id, run := h.submitted()
	source := theirs.Begin(id)
	defer source.End()
	source.Publish(progress(0.25)) // before anybody listens
	beat := &heartbeat{Handle: &backend.Handle{Pool: "url", Submission: 1}, Live: source.URL()}
	h.beats(run, beat)
	s := h.listen("/events/" + id)
	at := func(value float64) {
		t.Helper()
		s.until(fmt.Sprint("progress ", value), func(kind string, body map[string]any) bool {
			p, _ := body["progress"].(map[string]any)
			return kind == "status" && p["value"] == value
		})
	}
	at(0.25)
	source.Publish(live.News{Preview: &backend.Preview{NodeID: "1", ContentType: "image/png", Data: []byte("x")}})
	s.until("a preview", func(kind string, _ map[string]any) bool { return kind == "preview" })
	source.Publish(progress(0.5))
	at(0.5)
	server.CloseClientConnections()
	beat.Update = progress(0.75).Update
	h.beats(run, beat)
	at(0.75)
}

// TestFeedStatus: which of two words counts.
func TestFeedStatus(t *testing.T) {
	at := func(phase comfy.Phase, value float64) comfy.Status {
		st := comfy.Status{Phase: phase}
		if value > 0 {
			st.Progress = &comfy.Progress{Value: value}
		}
		return st
	}
	place, past := 4, time.Now().Add(-time.Second)
	for name, c := range map[string]struct {
		temporal comfy.Status
		word     *backend.Update
		until    time.Time
		want     comfy.Status
	}{
		"nobody speaks":                {at(comfy.PhaseRunning, 0.5), nil, time.Time{}, at(comfy.PhaseRunning, 0.5)},
		"the worker is ahead":          {at(comfy.PhaseQueued, 0), &backend.Update{Running: true, Progress: comfy.Progress{Value: 0.1}}, time.Time{}, at(comfy.PhaseRunning, 0.1)},
		"it has just begun to follow":  {at(comfy.PhaseRunning, 0.5), &backend.Update{Running: true}, time.Time{}, at(comfy.PhaseRunning, 0.5)},
		"its place in the line":        {at(comfy.PhaseQueued, 0), &backend.Update{QueuePosition: &place}, time.Time{}, comfy.Status{Phase: comfy.PhaseQueued, QueuePosition: &place}},
		"it stores outputs":            {at(comfy.PhaseCollecting, 0), &backend.Update{Running: true, Progress: comfy.Progress{Value: 1}}, time.Time{}, at(comfy.PhaseCollecting, 0)},
		"it is being stopped":          {at(comfy.PhaseCanceling, 0), &backend.Update{Running: true, Progress: comfy.Progress{Value: 0.3}}, time.Time{}, at(comfy.PhaseCanceling, 0.3)},
		"its last word":                {at(comfy.PhaseRunning, 0.5), &backend.Update{Running: true, Progress: comfy.Progress{Value: 0.9}}, time.Now().Add(time.Minute), at(comfy.PhaseRunning, 0.9)},
		"its last word, of a lost one": {at(comfy.PhaseWarming, 0), &backend.Update{Running: true, Progress: comfy.Progress{Value: 0.9}}, time.Now().Add(time.Minute), at(comfy.PhaseWarming, 0)},
		"its last word, long ago":      {at(comfy.PhaseRunning, 0.5), &backend.Update{Running: true, Progress: comfy.Progress{Value: 0.9}}, past, at(comfy.PhaseRunning, 0.5)},
	} {
		t.Run(name, func(t *testing.T) {
			f := &feed{job: &job{status: c.temporal}, word: c.word, until: c.until}
			require.Equal(t, c.want, f.status())
		})
	}
}
