package faults

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestF24SlowClients opens many connections that send their headers or bodies a byte at a time, and some that do not read
// a large answer: each is dropped, and others notice nothing.
func TestF24SlowClients(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes longer than half a minute; the long form has it")
	}
	w := newWorld(t)
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+realComfyUI(t))
	large := w.submit(strings.ReplaceAll(noise(int(time.Now().UnixNano()%1e9)), `"width":64,"height":64`, `"width":3072,"height":3072`))
	w.completes(large, 1)
	addr := strings.TrimPrefix(p.url, "http://")
	began := time.Now()
	var slow sync.WaitGroup
	var mu sync.Mutex
	dropped := map[string][]time.Duration{}
	attack := func(name, first string, again string, read bool) {
		slow.Go(func() {
			c, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			defer c.Close()
			if tcp, ok := c.(*net.TCPConn); ok && !read {
				_ = tcp.SetReadBuffer(4 << 10)
			}
			_, err = io.WriteString(c, first)
			require.NoError(t, err)
			gone := make(chan struct{})
			if read {
				go func() {
					_, _ = io.Copy(io.Discard, c)
					close(gone)
				}()
			}
			for time.Since(began) < 3*time.Minute {
				select {
				case <-gone:
				case <-time.After(time.Second):
					if again == "" || writes(c, again) {
						if read || again != "" || !reset(c) {
							continue
						}
					}
				}
				mu.Lock()
				dropped[name] = append(dropped[name], time.Since(began))
				mu.Unlock()
				return
			}
		})
	}
	head := "POST /submit_workflow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + aliceSecret + "\r\nContent-Type: application/json\r\n"
	for range 100 {
		attack("headers", "POST /submit_workflow HTTP/1.1\r\nX-A: ", "a", true)
		attack("body", head+"Content-Length: 1000000\r\n\r\n{", " ", true)
	}
	for range 10 {
		attack("reader", "GET /status/"+large+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+aliceSecret+"\r\n\r\n", "", false)
	}
	var took []time.Duration
	for time.Since(began) < 25*time.Second {
		at := time.Now()
		id := w.submit(noise(int(time.Now().UnixNano() % 1e9)))
		took = append(took, time.Since(at))
		w.completes(id, 1)
	}
	slow.Wait()
	for name, n := range map[string]int{"headers": 100, "body": 100, "reader": 10} {
		require.Len(t, dropped[name], n, name)
		longest := time.Duration(0)
		for _, d := range dropped[name] {
			longest = max(longest, d)
		}
		w.fired(true, fmt.Sprintf("%d slow connections (%s), all dropped within %.0f s", n, name, longest.Seconds()))
		require.Less(t, longest, 2*time.Minute, name)
	}
	slowest := time.Duration(0)
	for _, d := range took {
		slowest = max(slowest, d)
	}
	t.Logf("%d submissions meanwhile, the slowest took %s", len(took), slowest)
	require.Less(t, slowest, 10*time.Second)
	w.check()
}

func writes(c net.Conn, s string) bool {
	_, err := io.WriteString(c, s)
	return err == nil
}

// reset tells whether the other side has ended a connection that nobody reads from, without reading what it has sent:
// a byte that is sent into it comes back as an error, sooner or later.
func reset(c net.Conn) bool { return !writes(c, "\r\n") }
