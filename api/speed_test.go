package api

import (
	"bufio"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"github.com/comfyd/comfyd/comfy"
)

// connections as in DESIGN.md, section 6.
const connections = 16

func quietLog(o *Options) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	o.Log = log
}

// poll asks n times over 16 connections and returns the polls per second; client and server share the processors.
func poll(t testing.TB, h *harness, path string, status, n int) float64 {
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + keyA + "\r\n\r\n")
	var left atomic.Int64
	left.Store(int64(n))
	start := time.Now()
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			conn, err := net.Dial("tcp", h.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			var resp fasthttp.Response
			r := bufio.NewReader(conn)
			for left.Add(-1) >= 0 {
				_, err := conn.Write(request)
				if err = errors.Join(err, resp.Read(r)); err != nil || resp.StatusCode() != status {
					t.Errorf("%d %v", resp.StatusCode(), err)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(n) / time.Since(start).Seconds()
}

func TestSpeed(t *testing.T) {
	if testing.Short() {
		t.Skip("measures")
	}
	h := newHarness(t, quietLog)
	id, run := h.submitted()
	h.change(run, func() { run.own = &comfy.Status{Phase: comfy.PhaseRunning} })
	t.Logf("polls of a running job: %.0f/s", poll(t, h, "/status/"+id, 202, 20_000))
	h.complete(run, randomBytes(t, 2000))
	t.Logf("polls of a finished small job: %.0f/s", poll(t, h, "/status/"+id, 200, 20_000))

	times := make([]time.Duration, 500)
	for i := range times {
		start := time.Now()
		require.Equal(t, 202, h.submit(`{"workflow":`+graphJSON+`}`).status)
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	t.Logf("submit without Temporal's own time: p50 %v, p99 %v", times[len(times)/2], times[len(times)*99/100])
}
