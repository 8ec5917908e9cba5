package faults

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestF05TemporalFallsSilent stops Temporal (SIGSTOP) while submissions come in: no answer is untrue. Without a key
// nothing was accepted, and what Temporal took all the same is canceled; with one, the same key finds the one job.
func TestF05TemporalFallsSilent(t *testing.T) {
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	gate := s.Hold("ImageAddNoise") // what is accepted stays open
	temporald := w.temporald()
	api, worker := w.pair(w.temporal, s.URL)
	worker("worker-1", w.temporal)
	first := w.submit(noise(1))
	gate.Reached()

	temporald.pause()
	silent := time.Now()
	answers := make(chan *Event, 4)
	for range 4 {
		go func() { answers <- w.send(job{graph: noise(2)}) }()
	}
	keyed := job{graph: noise(3), key: "k"}
	unavailable := func(e *Event) {
		require.Equal(t, http.StatusServiceUnavailable, e.Code, "%v %s", e.Body, e.Err)
		require.Equal(t, "unavailable", e.Body["code"])
	}
	unavailable(w.send(keyed))
	for range 4 {
		unavailable(<-answers)
	}
	t.Logf("answered %.1f s after Temporal fell silent", time.Since(silent).Seconds())
	w.fired(temporald.paused(), "Temporal was stopped")
	temporald.resume()

	var id string
	require.Eventually(t, func() bool {
		e := w.send(keyed)
		id = e.Job
		return e.Code == http.StatusAccepted
	}, 5*time.Minute, 100*time.Millisecond, "the same key finds the job, or starts it")

	// Temporal held the starts in its socket, and took them when it woke up. Those that nobody knows end by themselves
	// while the double still holds every job: none has ended because it has run.
	c, err := w.dial(time.Minute)
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, func() bool {
		for _, status := range w.strangers(t.Context(), c, []string{first, id}) {
			if status != enums.WORKFLOW_EXECUTION_STATUS_CANCELED {
				return false
			}
		}
		return true
	}, 5*time.Minute, 200*time.Millisecond, "only the jobs that a client knows are open")
	said := api.said()
	unknown := strings.Count(said, "Temporal did not say whether it has taken this job")
	w.fired(unknown > 0, "starts had no answer")
	t.Logf("%d starts had no answer; %d of them had happened", unknown, strings.Count(said, "had started after all"))
	gate.Open()
	w.completes(first, 1)
	w.completes(id, 1)
	w.check()
}
