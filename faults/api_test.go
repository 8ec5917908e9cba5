package faults

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestF01APIKilledInPost kills the API while submissions come in, some answered, some on their way, some half sent. With
// their keys they are sent again: one job each. What was acknowledged goes on meanwhile.
func TestF01APIKilledInPost(t *testing.T) {
	n := 40
	w, d := newWorld(t), newDoor(t)
	w.gpu = d
	w.temporald()
	api, worker := w.pair(w.temporal, d.URL)
	worker("worker-1", w.temporal)
	half, err := net.Dial("tcp", strings.TrimPrefix(api.url, "http://"))
	require.NoError(t, err)
	defer half.Close()
	_, err = fmt.Fprintf(half, "POST /submit_workflow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nIdempotency-Key: half\r\nContent-Length: 1000\r\n\r\n{\"workflow\":", aliceSecret)
	require.NoError(t, err)

	seed := int(time.Now().UnixNano() % 1e9)
	jobs := make([]job, n)
	for i := range jobs {
		jobs[i] = job{graph: noise(seed + i), key: fmt.Sprintf("order %d of %d", i, seed)}
	}
	acks := make(chan *Event, n)
	var sending sync.WaitGroup
	for worker := range 8 {
		sending.Go(func() {
			for i := worker; i < n; i += 8 {
				acks <- w.send(jobs[i])
			}
		})
	}
	for range n / 8 {
		require.Equal(t, http.StatusAccepted, (<-acks).Code)
	}
	api.kill()
	sending.Wait()
	close(acks)
	lost := 0
	for e := range acks {
		if e.Code == 0 {
			lost++
		}
	}
	w.fired(lost > 0, fmt.Sprintf("kill -9 of the API: %d of %d submissions were never answered", lost, n))
	require.Eventually(t, func() bool { return len(d.posts()) >= n-lost }, 5*time.Minute, 20*time.Millisecond, "jobs go on without the API")
	api.start()
	for _, j := range append(jobs, job{graph: noise(seed - 1), key: "half"}) {
		e := w.send(j)
		require.Equal(t, http.StatusAccepted, e.Code, "%v", e.Body)
		w.finish(e.Job)
	}
	require.Len(t, w.accepted(), n+1)
	w.check()
}

// TestF14Duplicates sends one submission again and again: in turn, fifty at once, to two replicas, after the end, after a
// restart; and another under the same key.
func TestF14Duplicates(t *testing.T) {
	w, d := newWorld(t), newDoor(t)
	w.gpu = d
	w.temporald()
	api, worker := w.pair(w.temporal, d.URL)
	worker("worker-1", w.temporal)
	second := w.comfyd("api", "api-2", w.apart()...)
	second.start()
	j := job{graph: noise(int(time.Now().UnixNano() % 1e9)), key: fmt.Sprint("order ", time.Now().UnixNano())}
	var wait sync.WaitGroup
	for i := range 50 {
		wait.Go(func() {
			c := *w.alice
			c.URL = []string{api.url, second.url}[i%2]
			e := w.sendBy(&c, j)
			require.Equal(t, http.StatusAccepted, e.Code, "%v %s", e.Body, e.Err)
		})
	}
	wait.Wait()
	require.Len(t, w.accepted(), 1, "fifty at once")
	again := func() {
		e := w.send(j)
		require.Equal(t, http.StatusAccepted, e.Code)
		require.Equal(t, "true", e.Header.Get("Idempotent-Replayed"))
	}
	again()
	w.completes(w.accepted()[0], 1)
	again()
	second.kill()
	second.start()
	again()
	other := j
	other.more = map[string]any{"metadata": map[string]string{"another": "body"}}
	require.Equal(t, http.StatusUnprocessableEntity, w.send(other).Code)
	w.fired(len(w.accepted()) == 1, "53 submissions under one key, one with another body")
	w.check()
}

// posts are the prompts that came to the door.
func (d *door) posts() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.posted...)
}

// TestF21TooLarge sends bodies that are too large, in all the ways there are: each is refused, and memory stays flat.
func TestF21TooLarge(t *testing.T) {
	w := newWorld(t)
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+realComfyUI(t), "COMFYD_BODY_LIMIT=8MiB")
	id := w.submit(noise(1))
	w.finish(id)
	send := func(length int64, chunked bool, body io.Reader) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), "POST", p.url+"/submit_workflow", body)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+aliceSecret)
		req.Header.Set("Content-Type", "application/json")
		req.ContentLength = length
		if chunked {
			req.ContentLength = -1
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		return res.StatusCode, nil
	}
	const huge = 1 << 30
	attack := func(n int) {
		var refused sync.WaitGroup
		for range n {
			refused.Go(func() {
				sent := &counted{Reader: io.LimitReader(letters{}, huge)}
				code, err := send(huge, false, sent)
				if err == nil { // a client that is still sending may see the connection end instead
					require.Equal(t, http.StatusRequestEntityTooLarge, code)
				}
				require.Less(t, sent.n, int64(huge)/2, "it is refused early")
			})
			refused.Go(func() {
				code, err := send(0, true, io.MultiReader(strings.NewReader(`{"workflow":"`), io.LimitReader(letters{}, 300<<20)))
				if err == nil {
					// 503: bodies that are held in memory have a bound together, too.
					require.Contains(t, []int{http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable}, code)
				}
			})
		}
		refused.Wait()
		w.fired(true, fmt.Sprintf("%d bodies of 1 GiB by Content-Length, %d of 300 MiB in chunks, at once", n, n))
	}
	before := p.resident()
	first := p.most(func() { attack(4) })
	second := p.most(func() { attack(32) })
	t.Logf("resident memory: %d MiB before, %d MiB with 8 of them, %d MiB with 64", before>>20, first>>20, second>>20)
	// All bodies together have twice the limit, here 16 MiB. What decodes one doubles its buffer as it grows and copies it:
	// up to three times that. The garbage of the refused ones adds GOGC's 75 %, and the connections their buffers.
	require.Less(t, second-before, int64(128<<20), "of 40 GiB")
	for _, lie := range []struct {
		name, request string
		want          []string
	}{
		{"a Content-Length that is too small", "Content-Length: 5\r\n\r\n{\"workflow\": {}}", []string{"400"}},
		{"two of them", "Content-Length: 5\r\nContent-Length: 7\r\n\r\n{}     ", []string{"400", ""}},
		{"a negative one", "Content-Length: -1\r\n\r\n{}", []string{"400", "411", ""}},
	} {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		require.NoError(t, err)
		_, err = fmt.Fprintf(c, "POST /submit_workflow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n%s", aliceSecret, lie.request)
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(40*time.Second)))
		line, _ := bufio.NewReader(c).ReadString('\n')
		code := ""
		if f := strings.Fields(line); len(f) > 1 {
			code = f[1]
		}
		require.Contains(t, lie.want, code, lie.name)
		c.Close()
		w.fired(true, lie.name)
	}
	w.completes(w.submit(noise(2)), 1)
	w.check()
}

// most is the most memory that a process holds while f runs.
func (p *process) most(f func()) (most int64) {
	stop, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, p.resident())
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	f()
	close(stop)
	<-watched
	return most
}

// counted counts what was read.
type counted struct {
	io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// letters never ends.
type letters struct{}

func (letters) Read(p []byte) (int, error) {
	return copy(p, bytes.Repeat([]byte("a"), len(p))), nil
}
