package comfyui

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestProgressNeverGoesBack, not even when a node runs its bar a second time.
func TestProgressNeverGoesBack(t *testing.T) {
	k := NewTracker(NewPlan(graph(t, `{"1":{"class_type":"A","inputs":{}},"2":{"class_type":"B","inputs":{"x":["1",0]}},"3":{"class_type":"C","inputs":{"x":["2",0]}},
		"4":{"class_type":"D","inputs":{"x":["3",0]}}}`), []string{"4"}))
	node := "3"
	k.Event("executing", &Note{Node: &node})
	k.Event("progress", &Note{Value: 9, Max: 10})
	first, ok := k.Update()
	require.True(t, ok)
	require.InDelta(t, 0.9/4, first.Progress.Value, 1e-9)
	k.Event("progress", &Note{Value: 1, Max: 10})
	second, ok := k.Update()
	require.True(t, ok)
	require.Equal(t, 1, second.Progress.Step)
	require.Equal(t, first.Progress.Value, second.Progress.Value)
	_, ok = k.Update()
	require.False(t, ok, "no news")
}
