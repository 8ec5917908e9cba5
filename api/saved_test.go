package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
)

const savedJSON = `{"last_node_id":2, "nodes":[{"id":1,"type":"EmptyImage"}],"links":[],"version":0.4}`

func TestSubmitConvertsWhatTheEditorSaves(t *testing.T) {
	h := newHarness(t)
	var files []string
	h.catalogs.converted = func(file []byte) (json.RawMessage, error) {
		files = append(files, string(file))
		return json.RawMessage(graphJSON), nil
	}
	for name, c := range map[string]struct{ fields, want string }{
		"plain":     {``, `{"workflow":` + savedJSON + `}`},
		"besides":   {`,"extra_pnginfo":{"mine":1}`, `{"mine":1,"workflow":` + savedJSON + `}`},
		"their own": {`,"extra_pnginfo":{"workflow":{"n":1}}`, `{"workflow":{"n":1}}`},
		"stripped":  {`,"strip_metadata":true`, ``},
	} {
		a := h.submit(`{"workflow":` + savedJSON + c.fields + `}`)
		require.Equal(t, 202, a.status, "%s: %s", name, a.raw)
		run, err := h.temporal.get(a.body["id"].(string))
		require.NoError(t, err)
		require.JSONEq(t, graphJSON, string(run.request.Workflow), name)
		if c.want == "" {
			require.Empty(t, run.request.ExtraPNGInfo)
			continue
		}
		require.JSONEq(t, c.want, string(run.request.ExtraPNGInfo), name)
	}
	require.Equal(t, strings.ReplaceAll(savedJSON, " ", ""), files[0])
}

func TestSubmitRefusesWhatCannotBeConverted(t *testing.T) {
	h := newHarness(t)
	h.catalogs.converted = func([]byte) (json.RawMessage, error) {
		return nil, &comfy.GraphError{UI: true, Message: "Node 1 is odd.", NodeErrors: comfy.NodeErrors{"1": {ClassType: "Odd", Errors: []comfy.InputError{}, DependentOutputs: []string{}}}}
	}
	a := h.submit(`{"workflow":` + savedJSON + `}`)
	h.requireError(a, 400, CodeWorkflowFormatUI)
	require.Contains(t, a.body["node_errors"], "1")

	h.catalogs.converted = nil
	a = h.submit(`{"workflow":` + savedJSON + `}`)
	h.requireError(a, 503, CodeUnavailable)
	require.Equal(t, "2", a.header.Get("Retry-After"))

	h.catalogs.converted = func([]byte) (json.RawMessage, error) { return json.RawMessage(`{}`), nil }
	h.requireError(h.submit(`{"workflow":`+savedJSON+`}`), 400, CodeInvalidWorkflow) // every node is muted, say

	h.catalogs.converted = func([]byte) (json.RawMessage, error) { return json.RawMessage(graphJSON), nil }
	h.catalogs.refuse.Store(&comfy.Failure{Code: comfy.InvalidWorkflow, Message: "no model"})
	h.requireError(h.submit(`{"workflow":`+savedJSON+`}`), 400, CodeInvalidWorkflow)
	require.Empty(t, h.temporal.runs)
}

// TestSavedWorkflowIsTheSameRequestAgain: whatever a second conversion would give.
func TestSavedWorkflowIsTheSameRequestAgain(t *testing.T) {
	h := newHarness(t)
	n := 0
	h.catalogs.converted = func([]byte) (json.RawMessage, error) {
		n++
		return json.RawMessage(fmt.Sprintf(`{"%d":{"class_type":"A","inputs":{}}}`, n)), nil
	}
	one := h.submit(`{"workflow":`+savedJSON+`}`, "Idempotency-Key", "k")
	again := h.submit(`{"workflow": `+savedJSON+`}`, "Idempotency-Key", "k")
	require.Equal(t, 202, again.status, "%s", again.raw)
	require.Equal(t, one.body["id"], again.body["id"])
	require.Equal(t, "true", again.header.Get("Idempotent-Replayed"))
	require.Equal(t, 1, n)
	h.requireError(h.submit(`{"workflow":`+strings.Replace(savedJSON, "EmptyImage", "LoadImage", 1)+`}`, "Idempotency-Key", "k"), 422, CodeIdempotencyKeyReuse)
	h.requireError(h.submit(`{"workflow":`+graphJSON+`}`, "Idempotency-Key", "k"), 422, CodeIdempotencyKeyReuse)
}

func TestLargeSavedWorkflow(t *testing.T) {
	h := newHarness(t)
	large := strings.Replace(savedJSON, "EmptyImage", strings.Repeat("x", maxExtraPNGInfo), 1)
	h.catalogs.converted = func([]byte) (json.RawMessage, error) {
		return json.RawMessage(`{"1":{"class_type":"A","inputs":{"x":"` + strings.Repeat("y", claimCheck) + `"}}}`), nil
	}
	a := h.submit(`{"workflow":` + large + `}`)
	h.requireError(a, 422, CodeLimitExceeded)
	require.Contains(t, a.body["error"], "strip_metadata")
	a = h.submit(`{"workflow":` + large + `,"strip_metadata":true}`)
	require.Equal(t, 202, a.status, "%s", a.raw)
	run, err := h.temporal.get(a.body["id"].(string))
	require.NoError(t, err)
	require.Empty(t, run.request.Workflow)
	require.Contains(t, run.request.WorkflowRef, comfy.GraphPrefix("a"))
}
