package faults

import (
	"database/sql"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the driver of the stranger who opens the database

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestStrangerLocksTheDatabase: another program holds SQLite's write lock for longer than anybody waits, as a forgotten
// transaction in a shell does. Submissions are refused meanwhile; afterwards the same process goes on with every job.
func TestStrangerLocksTheDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute: the long form has it")
	}
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	gate := s.Hold("ImageAddNoise")
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL)
	ids := w.load(6)
	gate.Reached()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.data("serve"), "temporal.db")+"?_pragma=busy_timeout(5000)&_txlock=immediate")
	require.NoError(t, err)
	defer db.Close()
	tx, err := db.Begin()
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }() // it is over by then
	locked := time.Now()
	e := w.send(job{graph: noise(99), key: "while it is locked"})
	require.Equal(t, http.StatusServiceUnavailable, e.Code, "%v %s", e.Body, e.Err)
	require.NotEmpty(t, e.Header.Get("Retry-After"))
	gate.Open()
	<-time.After(time.Until(locked.Add(20 * time.Second))) // the fault lasts; nothing is waited for
	for _, id := range ids {
		require.False(t, ended(w.status(id).State()), "nobody can write an end")
	}
	w.fired(time.Since(locked) > 15*time.Second, "a submission was refused, and no job could end, while another program held the lock")
	require.NoError(t, tx.Rollback())
	freed := time.Now()
	for _, id := range ids {
		require.Equal(t, "COMPLETED", w.finish(id)["status"])
	}
	w.recovered("Temporal's database was locked by another program for 20 s, from its release on", freed, time.Since(freed))
	require.Equal(t, 6, s.TotalRuns(), "each ran once")
	require.Eventually(t, func() bool {
		return w.send(job{graph: noise(99), key: "while it is locked"}).Code == http.StatusAccepted
	},
		5*time.Minute, 100*time.Millisecond, "the same key goes through, whether its first start had happened or not")
	require.False(t, dead(p.cmd.Process.Pid), "it is the same process")
	w.check()
}

// TestStrangerUsesTheSamePage: somebody at ComfyUI's own page clears the queue and the history while jobs wait and run there.
func TestStrangerUsesTheSamePage(t *testing.T) {
	w, d := newLoneWorld(t), newDoor(t)
	w.gpu = d
	w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+d.URL)
	running := w.submit(slow(t))
	w.running(running)
	queued := w.submit(noise(int(time.Now().UnixNano() % 1e9)))
	require.Eventually(t, func() bool { return len(d.posts()) == 2 }, 5*time.Minute, 10*time.Millisecond, "it waits in ComfyUI")
	for range 2 {
		for _, path := range []string{"/queue", "/history"} {
			res, err := http.Post(realComfyUI(t)+path, "application/json", strings.NewReader(`{"clear": true}`))
			require.NoError(t, err)
			res.Body.Close()
			require.Equal(t, http.StatusOK, res.StatusCode)
		}
	}
	w.fired(true, "ComfyUI's queue and history were cleared by hand")
	w.completes(running, 1)
	// What ComfyUI has thrown away is posted again.
	require.Equal(t, "COMPLETED", w.finish(queued)["status"])
	require.Len(t, d.posts(), 3)
	w.check()
}

// babble is a proxy before a ComfyUI that now and then answers for it.
type babble struct {
	*httptest.Server
	mode atomic.Value // how it answers: "" passes everything on
	said atomic.Int64
}

const login = "<html><body><h1>Sign in</h1></body></html>"

func newBabble(t *testing.T, target string) *babble {
	t.Helper()
	u, err := url.Parse(target)
	require.NoError(t, err)
	b := &babble{}
	b.mode.Store("")
	proxy := httputil.NewSingleHostReverseProxy(u)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	b.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mode := b.mode.Load().(string)
		if mode != "" {
			b.said.Add(1)
		}
		rec := httptest.NewRecorder()
		switch mode {
		case "":
			proxy.ServeHTTP(rw, r)
		case "a 502 in HTML":
			http.Error(rw, login, http.StatusBadGateway)
		case "a page in place of the answer":
			rw.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(rw, login)
		case "half of the answer":
			proxy.ServeHTTP(rec, r)
			rw.WriteHeader(rec.Code)
			_, _ = rw.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		case "a 502 to what was done":
			proxy.ServeHTTP(rec, r)
			http.Error(rw, login, http.StatusBadGateway)
		}
	}))
	t.Cleanup(func() {
		b.CloseClientConnections()
		b.Close()
	})
	return b
}

// TestStrangerAnswersForComfyUI: a proxy before ComfyUI answers in its place, with what is no answer, while a prompt runs,
// while one is posted, and while outputs are fetched. Nothing of that is taken for an end, and nothing runs twice.
func TestStrangerAnswersForComfyUI(t *testing.T) {
	beside(t)
	for _, mode := range []string{"a 502 in HTML", "a page in place of the answer", "half of the answer", "a 502 to what was done"} {
		t.Run(mode, func(t *testing.T) {
			if testing.Short() && mode != "half of the answer" {
				t.Skip("the long form has it")
			}
			w, s := newWorld(t), fakecomfy.New(t)
			w.gpu = doubles{s}
			b := newBabble(t, s.URL)
			gate := s.Hold("EmptyImage")
			w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+b.URL)
			running := w.submit(noise(1))
			gate.Reached()
			w.phase(running, func(e *Event) bool { return e.Body["phase"] == "running" }, "it runs")
			b.mode.Store(mode)
			b.CloseClientConnections() // the event socket as well
			posted := w.submit(noise(2))
			gate.Open()
			// Less than makes a prompt lost, which is eight seconds.
			require.Eventually(t, func() bool { return b.said.Load() > 3 }, 6*time.Second, 50*time.Millisecond, "the proxy is asked")
			require.Equal(t, "RUNNING", w.status(running).State())
			require.Equal(t, "RUNNING", w.status(posted).State())
			w.fired(true, fmt.Sprintf("the proxy gave %s %d times", mode, b.said.Load()))
			healed := time.Now()
			b.mode.Store("")
			w.completes(running, 1)
			w.recovered("a proxy before ComfyUI gave "+mode+" for a while, from its end on", healed, time.Since(healed))
			// Where the answer to its post said nothing, nobody knew whether ComfyUI had it, and its attempts say so.
			require.LessOrEqual(t, w.ends(posted, "COMPLETED")["attempts"], 2.0)
			require.Equal(t, 2, s.TotalRuns(), "nothing is made again")
			w.check()
		})
	}
}

// TestTwinPools: two workers with one pool's name and a ComfyUI each, by mistake or while COMFYUI_URLS changes. Each step
// finds the worker that has the prompt's server; where that one is gone for good, the prompt counts as lost.
func TestTwinPools(t *testing.T) {
	w, one, two := newWorld(t), fakecomfy.New(t), fakecomfy.New(t)
	w.gpu = doubles{one, two}
	w.temporald()
	_, worker := w.pair(w.temporal, one.URL, "COMFYD_SITE=twin")
	worker("worker-1", w.temporal)
	other := w.comfyd("worker", "worker-2", w.apart("COMFYD_BACKEND=url", "COMFYUI_URLS="+two.URL, "COMFYD_SITE=twin")...)
	other.launch()
	first, second := one.Hold("EmptyImage"), two.Hold("EmptyImage")
	ids := w.load(24)
	first.Reached()
	second.Reached()
	first.Open()
	second.Open()
	for _, id := range ids {
		w.completes(id, 1)
	}
	w.fired(one.TotalRuns() > 0 && two.TotalRuns() > 0 && one.TotalRuns()+two.TotalRuns() == 24, "one pool, two workers with a server each")

	gate := two.Hold("ImageAddNoise")
	defer gate.Open()
	ids = w.load(6)
	gate.Reached()
	other.kill()
	w.fired(true, "the only worker with the prompt's server was killed for good")
	for _, id := range ids {
		require.Equal(t, "COMPLETED", w.finish(id)["status"])
	}
	w.check()
}
