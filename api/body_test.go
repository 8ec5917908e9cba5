package api

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBodyTooLarge(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.BodyLimit = 1 << 20 })
	head := "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + keyA + "\r\nContent-Type: %s\r\n"
	submit := fmt.Sprintf(head, "/submit_workflow", "application/json")
	upload := fmt.Sprintf(head, "/inputs?name=x", "image/png")
	for name, request := range map[string]string{
		"nothing sent":      submit + "Content-Length: 1048577\r\n\r\n",
		"absurd":            submit + "Content-Length: 9000000000000000000\r\n\r\n",
		"asks before":       submit + "Content-Length: 1048577\r\nExpect: 100-continue\r\n\r\n",
		"upload":            upload + "Content-Length: 1048577\r\n\r\n",
		"chunked":           submit + "Transfer-Encoding: chunked\r\n\r\n200000\r\n{\"x\":\"" + strings.Repeat("x", 0x100001-6),
		"chunked upload":    upload + "Transfer-Encoding: chunked\r\n\r\n200000\r\n" + strings.Repeat("x", 0x100001),
		"forged marker too": submit + tooLargeValue + ": 1\r\nContent-Length: 1048577\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			start := time.Now()
			a := h.raw(1, request)[0]
			h.requireError(a, 413, CodePayloadTooLarge)
			require.Less(t, time.Since(start), headerTimeout)
			require.Contains(t, a.body["error"], "1048576")
		})
	}
	require.Empty(t, h.store.objects)
	require.Zero(t, h.server.memory.used.Load())
	require.Equal(t, 202, h.submit(`{"workflow":`+graphJSON+`}`, tooLargeValue, "1").status, "the marker is ours alone")
	fits := `{"workflow":` + graphJSON + `,"x":"` + strings.Repeat("x", 1<<20-len(graphJSON)-20) + `"}`
	require.Len(t, fits, 1<<20)
	require.Equal(t, 202, h.submit(fits).status, "the limit itself is allowed")
}

// A client that sends all before it reads sees the answer instead of a reset connection.
func TestBodyTooLargeForAClientThatIsStillSending(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.BodyLimit = 20 << 20 })
	for name, c := range map[string]struct {
		size   int
		key    string
		status int
	}{"too large": {21 << 20, keyA, 413}, "no key": {20 << 20, "wrong", 401}} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", h.addr)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
			_, err = fmt.Fprintf(conn, "POST /submit_workflow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", c.key, c.size)
			require.NoError(t, err)
			piece := []byte(strings.Repeat("x", 1<<20))
			for range c.size >> 20 {
				_, err = conn.Write(piece)
				require.NoError(t, err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.Equal(t, c.status, resp.StatusCode)
			require.True(t, resp.Close)
			require.NoError(t, resp.Body.Close())
		})
	}
}

// What is left of a body must never be taken for the next request.
func TestNoSmuggling(t *testing.T) {
	h := newHarness(t)
	inner := "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	conn, err := net.Dial("tcp", h.addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = fmt.Fprintf(conn, "POST /submit_workflow HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s%s", len(inner), inner, "GET /nope HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	r := bufio.NewReader(conn)
	for _, status := range []int{401, 404} {
		resp, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		require.Equal(t, status, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
	}
	for _, a := range h.raw(1, "POST /submit_workflow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+inner) {
		require.Equal(t, 401, a.status)
	}
}

func TestBodyThatStops(t *testing.T) {
	h := newHarness(t)
	for name, path := range map[string]string{"upload": "/inputs?name=x", "submit": "/submit_workflow"} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			media := map[string]string{"upload": "image/png", "submit": "application/json"}[name]
			conn, err := net.Dial("tcp", h.addr)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
			_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: 100000\r\n\r\n%s", path, keyA, media, `{"workflow":{`+strings.Repeat(" ", 20000))
			require.NoError(t, err)
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			h.requireError(h.read(resp), 400, CodeInvalidRequest)
		})
	}
	require.Empty(t, h.store.objects, "half a file is none")
	require.Empty(t, h.temporal.runs)
}

func TestSlowRequests(t *testing.T) {
	h := newTunedHarness(t, func(s *Server) { s.app.Server().ReadTimeout = 300 * time.Millisecond })
	a := h.raw(1, "GET /healthz HTTP/1.1\r\nHo")[0]
	h.requireError(a, 408, CodeRequestTimeout)
}

func TestSlowBody(t *testing.T) {
	b := &body{conn: &deadlineConn{}, src: http.NoBody, limit: 10, declared: 5, deadline: time.Now().Add(time.Hour)}
	_, err := b.Read(make([]byte, 1))
	require.Equal(t, CodeInvalidRequest, asError(err).Code, "ends before its declared length")
	conn := &deadlineConn{}
	b = &body{conn: conn, src: pattern{}, limit: 1 << 30, declared: -1, deadline: time.Now().Add(time.Second)}
	_, err = b.Read(make([]byte, 1))
	require.NoError(t, err)
	require.Equal(t, b.deadline, conn.read, "the whole body has a deadline")
	b.deadline = time.Now().Add(time.Hour)
	_, err = b.Read(make([]byte, 1))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(headerTimeout), conn.read, headerTimeout/2, "and so has each pause")
}

type deadlineConn struct {
	net.Conn
	read time.Time
}

func (d *deadlineConn) SetReadDeadline(at time.Time) error { d.read = at; return nil }

func TestBodiesInMemoryAreBounded(t *testing.T) {
	h := newHarness(t)
	h.server.memory.used.Store(h.server.memory.max)
	a := h.submit(`{"workflow":` + graphJSON + `}`)
	h.requireError(a, 503, CodeUnavailable)
	require.Equal(t, h.server.memory.max, h.server.memory.used.Load())
	require.Equal(t, 201, h.do("POST", "/inputs?name=x", "y", "Content-Type", "image/png").status, "what streams takes none")
}
