package app_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/embedded"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestAnOlderDataFolder is one from before the search attribute ComfyInputs. It gets it at the next start, what waited in
// it is run, and what is new is found by it.
func TestAnOlderDataFolder(t *testing.T) {
	folder := t.TempDir()
	older, err := embedded.Start(t.Context(), embedded.Options{
		DataDir: folder, Listen: "127.0.0.1:0", Retention: 7 * 24 * time.Hour,
		SearchAttributes: map[string]enums.IndexedValueType{
			comfy.AttrBackend: enums.INDEXED_VALUE_TYPE_KEYWORD, comfy.AttrTenant: enums.INDEXED_VALUE_TYPE_KEYWORD,
			comfy.AttrErrorCode: enums.INDEXED_VALUE_TYPE_KEYWORD, comfy.AttrMetadata: enums.INDEXED_VALUE_TYPE_KEYWORD_LIST,
		},
	})
	require.NoError(t, err)
	defer older.Stop() // a second time does nothing
	c, err := client.Dial(client.Options{HostPort: older.Address()})
	require.NoError(t, err)
	defer c.Close()
	_, err = c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: "from-before", TaskQueue: comfy.TaskQueue, WorkflowExecutionTimeout: time.Hour,
		Memo: map[string]any{comfy.MemoSubmission: comfy.Submission{Tenant: "alice"}},
		TypedSearchAttributes: temporal.NewSearchAttributes(
			temporal.NewSearchAttributeKeyKeyword(comfy.AttrTenant).ValueSet("alice"),
			temporal.NewSearchAttributeKeyKeywordList(comfy.AttrMetadata).ValueSet([]string{"of=old"})),
	}, comfy.WorkflowName, comfy.Request{Workflow: graph(1, "old")})
	require.NoError(t, err)
	attributes, err := c.OperatorService().ListSearchAttributes(t.Context(), &operatorservice.ListSearchAttributesRequest{Namespace: "default"})
	require.NoError(t, err)
	require.NotContains(t, attributes.GetCustomAttributes(), comfy.AttrInputs, "it is an older one")
	require.NoError(t, older.Stop())

	a := start(t, map[string]string{"COMFYD_DATA_DIR": folder, "COMFYUI_URLS": fakecomfy.New(t).URL})
	a.ready()
	status := a.finish("from-before")
	require.Equal(t, "COMPLETED", status["status"], "%v", status)
	require.EqualValues(t, 1, status["attempts"])
	id := a.submit(map[string]any{"workflow": graph(2, "new")})
	require.Equal(t, "COMPLETED", a.finish(id)["status"])
	now, err := client.Dial(client.Options{HostPort: a.app.TemporalAddress})
	require.NoError(t, err)
	defer now.Close()
	for query, want := range map[string]int64{comfy.AttrInputs + " = 'none'": 1, comfy.AttrMetadata + " = 'of=old'": 1} {
		require.Eventually(t, func() bool {
			r, err := now.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: query})
			return err == nil && r.GetCount() == want
		}, 2*time.Minute, 20*time.Millisecond, query)
	}
	require.Len(t, a.do("GET", "/jobs", nil).body["jobs"], 2)
}
