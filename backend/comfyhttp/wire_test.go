package comfyhttp

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDeviceNames(t *testing.T) {
	for name, want := range map[string]string{
		`{"name":"cuda:0 NVIDIA L40S : cudaMallocAsync","type":"cuda"}`:  "NVIDIA L40S",
		`{"name":"cuda:0 NVIDIA H100 80GB HBM3 : native","type":"cuda"}`: "NVIDIA H100 80GB HBM3",
		`{"name":"cpu","type":"cpu"}`:                                    "cpu",
		`{"name":"mps","type":"mps"}`:                                    "mps",
	} {
		var s systemStats
		require.NoError(t, json.Unmarshal([]byte(`{"devices":[`+name+`]}`), &s))
		require.Equal(t, want, s.device())
	}
}

func TestQueuePlaces(t *testing.T) {
	var q queueState
	require.NoError(t, json.Unmarshal([]byte(`{"queue_running":[[1,"r",{},{},[]],["odd"],null],"queue_pending":[[7,"c"],[2,"a"],[-3.5,"front"]]}`), &q))
	running, place := q.find("r")
	require.True(t, running)
	require.Equal(t, -1, place)
	for id, want := range map[string]int{"front": 0, "a": 1, "c": 2, "nobody": -1} {
		running, place = q.find(id)
		require.False(t, running)
		require.Equal(t, want, place, id)
	}
}
