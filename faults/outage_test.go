package faults

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestF05AllInOneKilledUnderLoad kills comfyd with many jobs in flight on the real ComfyUI.
func TestF05AllInOneKilledUnderLoad(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 20
	}
	w, d := newWorld(t), newDoor(t)
	w.gpu = d
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+d.URL)
	view := d.hold("/view")
	ids := w.load(n)
	view.at(t)
	killed := time.Now()
	p.kill()
	w.fired(w.gone(), "kill -9 of comfyd with jobs in flight")
	p.start()
	up := time.Since(killed)
	open := 0
	for _, id := range ids {
		if w.status(id).State() == "RUNNING" {
			open++
		}
	}
	w.fired(open > n/4, "many jobs were still open after the restart")
	view.let()
	for _, id := range ids {
		require.Equal(t, "COMPLETED", w.finish(id)["status"])
	}
	w.recovered("all-in-one killed under load", killed, up)
	w.check()
}

// load submits n jobs at once, each of which makes a picture of its own.
func (w *world) load(n int) []string {
	w.t.Helper()
	seed := int(time.Now().UnixNano() % 1e9)
	ids := make([]string, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { ids[i] = w.send(job{graph: noise(seed + i)}).Job })
	}
	wait.Wait()
	require.NotContains(w.t, ids, "", "every job is accepted")
	return ids
}

// TestF05TemporalKilled kills a separate Temporal with jobs in flight. Meanwhile the API says 503 and when to come again;
// afterwards all goes on.
func TestF05TemporalKilled(t *testing.T) {
	n := 40
	if testing.Short() {
		n = 10
	}
	w, d := newWorld(t), newDoor(t)
	w.gpu = d
	temporald := w.temporald()
	_, worker := w.pair(w.temporal, d.URL)
	worker("worker-1", w.temporal)
	ids := w.load(n)
	temporald.kill()
	for _, c := range []struct{ method, path, job string }{
		{"GET", "/status/" + ids[n-1], ids[n-1]}, {"POST", "/cancel/" + ids[n-1], ids[n-1]},
	} {
		e := w.alice.Do(t.Context(), c.method, c.path, c.job, nil, nil)
		if ended(e.State()) {
			continue // it was known to have ended
		}
		require.Equal(t, http.StatusServiceUnavailable, e.Code, "%s %v %s", c.path, e.Body, e.Err)
		require.NotEmpty(t, e.Header.Get("Retry-After"), c.path)
		w.fired(true, c.path[:8]+" without Temporal is a 503")
	}
	e := w.send(job{graph: noise(1), key: "during the outage"})
	require.Equal(t, http.StatusServiceUnavailable, e.Code, "%v %s", e.Body, e.Err)
	require.NotEmpty(t, e.Header.Get("Retry-After"))
	require.Equal(t, http.StatusServiceUnavailable, w.alice.Do(t.Context(), "GET", "/readyz", "", nil, nil).Code)
	w.fired(true, "a submission without Temporal is a 503")
	back := time.Now()
	temporald.launch()
	require.Eventually(t, func() bool { return w.send(job{graph: noise(1), key: "during the outage"}).Code == http.StatusAccepted },
		5*time.Minute, 100*time.Millisecond, "jobs are taken again")
	up := time.Since(back)
	for _, id := range ids {
		require.Equal(t, "COMPLETED", w.finish(id)["status"])
	}
	w.recovered("separate Temporal killed under load, from its restart on", back, up)
	w.check()
}

// TestF11PartitionFromTemporal cuts a worker off from Temporal while its prompt runs; another one takes the job over and
// ends it. What the first one knows comes too late, and its prompt is not touched.
func TestF11PartitionFromTemporal(t *testing.T) {
	beside(t)
	for name, stall := range map[string]bool{"cut": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && !stall {
				t.Skip("the long form has it")
			}
			w, s := newWorld(t), fakecomfy.New(t)
			w.gpu = doubles{s}
			gate := s.Hold("EmptyImage")
			w.temporald()
			net := newLink(t, w.temporal)
			_, worker := w.pair(w.temporal, s.URL)
			worker("worker-1", net.addr)
			id := w.submit(noise(1))
			gate.Reached()
			worker("worker-2", w.temporal)
			away := time.Now()
			if stall {
				net.stall()
			} else {
				net.cut()
			}
			on := w.follows(id, away.Add(2*time.Second)) // heartbeats that were under way have arrived
			w.fired(net.hit(), "the worker was cut off from Temporal ("+name+")")
			t.Logf("RECOVERY worker cut off from Temporal (%s), another is alive: on after %.1f s", name, (on + 2*time.Second).Seconds())
			w.mustNot(s, 2*time.Second)
			gate.Open()
			status := w.completes(id, 1)
			w.mustNot(s, 3*time.Second) // the first worker sees its prompt end, too, and cannot tell
			net.heal()
			w.mustNot(s, 5*time.Second)
			require.Equal(t, status, w.finish(id), "the first end stands")
			next := w.submit(noise(2))
			w.completes(next, 1)
			w.check()
		})
	}
}

// TestF11AloneInThePartition: no other worker is there. When the network heals, the same worker goes on.
func TestF11AloneInThePartition(t *testing.T) {
	if testing.Short() {
		t.Skip("TestF11PartitionFromTemporal is harder: the long form has it")
	}
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	gate := s.Hold("EmptyImage")
	w.temporald()
	net := newLink(t, w.temporal)
	_, worker := w.pair(w.temporal, s.URL)
	worker("worker-1", net.addr)
	id := w.submit(noise(1))
	gate.Reached()
	net.cut()
	w.fired(net.hit(), "the only worker was cut off from Temporal")
	w.mustNot(s, 20*time.Second)
	gate.Open()
	healed := time.Now()
	net.heal()
	w.completes(id, 1)
	w.recovered("the only worker cut off from Temporal, from the heal on", healed, time.Since(healed))
	w.check()
}
