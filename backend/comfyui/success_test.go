package comfyui

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// TestASuccessWithAnError is none: the history of a prompt whose nodes depend on each other, as ComfyUI 0.3.75 wrote it.
func TestASuccessWithAnError(t *testing.T) {
	const history = `{"outputs":{},"status":{"status_str":"success","completed":true,"messages":[
		["execution_start",{"prompt_id":"p","timestamp":1}],["execution_cached",{"nodes":[],"prompt_id":"p","timestamp":2}],%s
		["execution_success",{"prompt_id":"p","timestamp":3}]]}}`
	read := func(message string) *History {
		var h History
		require.NoError(t, json.Unmarshal(fmt.Appendf(nil, history, message), &h))
		return &h
	}
	require.Nil(t, read("").Failure())
	err := read(`["execution_error",{"node_id":"1","node_type":"PreviewAny","exception_type":"graph.DependencyCycleError","exception_message":"Dependency cycle detected"}],`).Failure()
	require.Equal(t, comfy.NodeFailed, err.Code)
	require.Equal(t, "1", err.NodeID)
	require.True(t, err.Ran)
	require.Contains(t, err.Message, "Dependency cycle detected")
}

// TestUnserved: a file that ComfyUI never hands out is an error of its node, and no reason to run it once more.
func TestUnserved(t *testing.T) {
	require.NoError(t, Unserved([]backend.File{{NodeID: "1", Filename: "a_00001_.png", Subfolder: "b..c"}}))
	for _, name := range []string{"wait..._00001_.png", "a\nb.png", "a\rb.png"} {
		var e *backend.Error
		require.ErrorAs(t, Unserved([]backend.File{{NodeID: "1", Filename: "a.png"}, {NodeID: "2", Filename: name}}), &e)
		require.Equal(t, comfy.NodeFailed, e.Code)
		require.Equal(t, "2", e.NodeID)
	}
}
