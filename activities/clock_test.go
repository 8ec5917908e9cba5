package activities_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
)

func TestAWrongClockIsSaidOnce(t *testing.T) {
	for ahead, lines := range map[time.Duration]int{-time.Hour: 0, 0: 0, 20 * time.Second: 0, time.Hour: 1} {
		b := newBench(t)
		b.ahead = ahead
		b.makes(0, 0)
		for range 2 {
			require.NoError(t, b.do(t, comfy.ActivityPrompt, promptInput(), nil))
		}
		require.Len(t, b.log.AllEntries(), lines, "ahead by %s", ahead)
	}
}
