package comfyhttp

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend/backendtest"
)

// BenchmarkTinyJob carries a job of one small image to its end, files not fetched, on the real ComfyUI.
func BenchmarkTinyJob(b *testing.B) {
	be := open(b, Options{URLs: []string{realComfyUI(b)}}, defaultTiming())
	require.NoError(b, be.Probe(b.Context()))
	for i := 0; b.Loop(); i++ {
		_, err := be.Run(b.Context(), backendtest.Prompt(b, solid(i)), nil, newRecorder())
		require.NoError(b, err)
	}
}
