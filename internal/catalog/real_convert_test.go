package catalog

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRealConverts: with what the real ComfyUI says of its nodes, files become what the editor made of them. It also sends
// what widgets hold that only show something, which no class declares.
func TestRealConverts(t *testing.T) {
	c := real(t).catalog()
	files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "ui", "*.api.json"))
	require.NoError(t, err)
	require.Greater(t, len(files), 20)
	type node struct {
		Class  string                     `json:"class_type"`
		Inputs map[string]json.RawMessage `json:"inputs"`
	}
	for _, name := range files {
		var want, have map[string]node
		raw, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(raw, &want))
		saved, err := os.ReadFile(strings.TrimSuffix(name, ".api.json") + ".json")
		require.NoError(t, err)
		raw, err = converted(c, saved)
		require.NoError(t, err, name)
		require.NoError(t, json.Unmarshal(raw, &have))
		require.Len(t, have, len(want), name)
		for id, n := range want {
			for input, value := range n.Inputs {
				if c.classes[n.Class].inputs[input] == nil && value[0] != '[' {
					continue
				}
				require.JSONEq(t, string(value), string(have[id].Inputs[input]), "%s: %s of node %s", name, input, id)
			}
		}
	}
}
