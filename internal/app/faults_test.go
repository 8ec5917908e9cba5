package app_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// held starts comfyd on a double whose EmptyImage takes until the gate opens, whatever is asked of it.
func held(t *testing.T) (*api, *fakecomfy.Server, *fakecomfy.Gate) {
	s := fakecomfy.New(t)
	gate := s.Hold("EmptyImage")
	a := start(t, map[string]string{"COMFYUI_URLS": s.URL})
	a.ready()
	return a, s, gate
}

// TestCancelWhileComfyUIIsAsked: a cancel that comes while ComfyUI has not yet answered how its prompt is stops the prompt.
func TestCancelWhileComfyUIIsAsked(t *testing.T) {
	a, s, gate := held(t)
	id := a.submit(map[string]any{"workflow": graph(1, "held")})
	gate.Reached()
	history := "GET /history/" + prompts(t, s)[0]
	http := s.HoldHTTP()
	before := s.Requests(history)
	s.Await("a look", func() bool { return s.Requests(history) > before })
	require.Equal(t, 202, a.do("POST", "/cancel/"+id, nil).code)
	s.Await("somebody who wants to stop it", func() bool { return s.Requests("POST /queue") > 0 })
	http.Open()
	s.Await("an interruption", func() bool { return len(s.Interrupts()) > 0 })
	gate.Open()
	require.Equal(t, "canceled", a.finish(id)["code"])
	require.Equal(t, 1, s.TotalRuns())
}

// TestUninterruptibleNode: a node that cannot be interrupted does not keep its job from its end, nor take the pool's slots.
func TestUninterruptibleNode(t *testing.T) {
	a, s, gate := held(t)
	began := time.Now()
	id := a.submit(map[string]any{"workflow": graph(1, "held"), "timeout_seconds": 2})
	gate.Reached()
	status := a.finish(id)
	require.Equal(t, "FAILED", status["status"])
	require.Equal(t, "timeout", status["code"], "%v", status)
	require.EqualValues(t, 1, status["attempts"])
	require.Less(t, time.Since(began), 40*time.Second)
	next := a.submit(map[string]any{"workflow": graph(2, "next")})
	gate.Open()
	require.Equal(t, "COMPLETED", a.finish(next)["status"])
	require.Equal(t, 2, s.TotalRuns())
}
