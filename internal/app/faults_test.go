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
