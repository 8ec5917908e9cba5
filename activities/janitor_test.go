package activities_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// TestReleaseIsTriedAgain: what a job has left on a backend that was away when the job closed does not stay, or run on, there.
func TestReleaseIsTriedAgain(t *testing.T) {
	b := newBench(t)
	b.closed, b.double.away = true, 1
	b.double.run = func(_ context.Context, p *backend.Prompt, _ *backend.Handle, _ backend.Recorder) (*backend.Outcome, error) {
		return &backend.Outcome{Handle: handle(p)}, nil
	}
	require.NoError(t, b.do(t, comfy.ActivityPrompt, promptInput(), nil))
	require.Eventually(t, func() bool {
		b.double.mu.Lock()
		defer b.double.mu.Unlock()
		return len(b.double.released) == 2
	}, time.Minute, 10*time.Millisecond)
	require.Never(t, func() bool {
		b.double.mu.Lock()
		defer b.double.mu.Unlock()
		return len(b.double.released) > 2
	}, 3*time.Second, 100*time.Millisecond, "it is done")
}
