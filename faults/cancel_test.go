package faults

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestF17CancelRacesCompletion cancels jobs at every moment of their lives, twice each, between jobs that nobody cancels:
// each has one truthful end, and the others complete.
func TestF17CancelRacesCompletion(t *testing.T) {
	n := 60
	if testing.Short() {
		n = 20
	}
	w, d := newWorld(t), newDoor(t)
	w.gpu = d
	w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+d.URL)
	seed := int(time.Now().UnixNano() % 1e9)
	w.completes(w.submit(noise(seed-1)), 1) // ComfyUI is warm
	r := rand.New(rand.NewPCG(1, 2))
	var wait sync.WaitGroup
	others := make([]string, n)
	canceled := make([]string, n)
	for i := range n {
		others[i] = w.submit(noise(seed + 2*i))
		id := w.submit(noise(seed + 2*i + 1))
		canceled[i] = id
		pause := time.Duration(r.IntN(1500)) * time.Millisecond
		wait.Go(func() {
			if i%5 == 0 { // just before its end, or just after
				w.nearItsEnd(id, i%10 == 0)
			} else {
				<-time.After(pause)
			}
			for range 2 {
				e := w.alice.Do(t.Context(), "POST", "/cancel/"+id, id, nil, nil)
				require.Contains(t, []int{http.StatusAccepted, http.StatusOK}, e.Code, "%v", e.Body)
			}
		})
	}
	wait.Wait()
	for _, id := range others {
		w.completes(id, 1)
	}
	won, lost := 0, 0
	for _, id := range canceled {
		status := w.finish(id)
		if status["status"] == "COMPLETED" {
			lost++
			continue
		}
		require.Equal(t, "canceled", status["code"], "%v", status)
		won++
	}
	w.fired(won > 0 && lost > 0, fmt.Sprintf("%d cancels raced %d jobs: %d were canceled, %d had completed", 2*n, n, won, lost))
	w.check()
}

// nearItsEnd waits until a job's outputs are collected, or it has ended.
func (w *world) nearItsEnd(id string, ended bool) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		e := w.status(id)
		return e.Code == http.StatusOK || (!ended && e.Body["phase"] == "collecting")
	}, 5*time.Minute, 5*time.Millisecond)
}

// TestF17CancelQueuedAndRunning cancels a job that waits and one that runs: the one takes no GPU time, the other is
// interrupted, and the third completes.
func TestF17CancelQueuedAndRunning(t *testing.T) {
	w, d := newWorld(t), newDoor(t)
	w.gpu = d
	w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+d.URL)
	running := w.submit(slowOf(t, 5120))
	w.running(running)
	seed := int(time.Now().UnixNano() % 1e9)
	queued, third := w.submit(noise(seed)), w.submit(noise(seed+1))
	w.phase(queued, func(e *Event) bool { return e.Body["phase"] == "queued" }, "it waits")
	for range 2 {
		w.alice.Do(t.Context(), "POST", "/cancel/"+queued, queued, nil, nil)
	}
	w.fails(queued, "canceled")
	require.Equal(t, "RUNNING", w.status(running).State(), "another's cancel does not touch it")
	w.fired(true, "a job was canceled in the queue")
	at := time.Now()
	w.alice.Do(t.Context(), "POST", "/cancel/"+running, running, nil, nil)
	w.fails(running, "canceled")
	t.Logf("a running job has ended %.1f s after its cancel", time.Since(at).Seconds())
	w.fired(true, "a job was canceled while it ran")
	w.completes(third, 1)
	w.check()
}
