package app_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
)

// TestTerminatedInTheTemporalUI: the job has failed for its clients, and its prompt is stopped.
func TestTerminatedInTheTemporalUI(t *testing.T) {
	a, s, gate := held(t)
	id := a.submit(map[string]any{"workflow": graph(1, "terminated")})
	gate.Reached()
	ctx, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	c, err := client.DialContext(ctx, client.Options{HostPort: a.app.TemporalAddress})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.TerminateWorkflow(ctx, id, "", "a test"))
	status := a.finish(id)
	require.Equal(t, "FAILED", status["status"])
	require.Equal(t, "internal", status["code"], "%v", status)
	require.Contains(t, status["error"], "terminated by an operator")
	require.Eventually(t, func() bool { return len(s.Interrupts()) > 0 }, 2*time.Minute, 20*time.Millisecond, "nothing runs on")
	gate.Open()
	require.Equal(t, status, a.finish(id))
}
