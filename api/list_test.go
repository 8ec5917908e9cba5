package api

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"github.com/comfyd/comfyd/comfy"
)

func TestListRefuses(t *testing.T) {
	h := newHarness(t)
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=101": "limit", "limit=x": "limit", "limit=": "limit", "limit=5&limit=6": "limit",
		"status=running": "status", "status=": "status", "code=nope": "code", "backend=": "backend", "backend=%00": "backend",
		"backend=" + strings.Repeat("x", 256): "backend", "metadata=x": "metadata", "metadata==x": "metadata",
		"metadata=a=%ff": "metadata", "metadata=a=%0a": "metadata", "metadata=a=" + strings.Repeat("x", 256): "metadata",
		strings.Repeat("metadata=a=b&", 17): "metadata", "since=yesterday": "since",
		"until=0001-01-01T00:00:00Z": "until", "since=0001-01-01T00:00:00Z": "since", "until=9999-12-31T23:59:59-01:00": "until",
		"until=2026-01-01": "until",
		"cursor=x":         "cursor", "cursor=" + strings.Repeat("A", 5000): "cursor", "cursor=AAAA": "cursor", "colour=red": "colour",
	} {
		a := h.do("GET", "/jobs?"+query, "")
		h.requireError(a, 400, CodeInvalidRequest)
		require.Contains(t, a.body["error"], field, query)
	}
	require.Empty(t, h.temporal.queried, "none of it has reached Temporal")
	h.requireError(h.do("GET", "/jobs", "", "Authorization", ""), 401, CodeUnauthorized)
	h.temporal.fail(serviceerror.NewUnavailable("away"))
	h.requireError(h.do("GET", "/jobs", ""), 503, CodeUnavailable)
}

// TestListQuotes: whatever a value holds, it stays one literal.
func TestListQuotes(t *testing.T) {
	h := newHarness(t)
	for _, evil := range []string{`x' OR 'a'='a`, `x\' OR 1=1 --`, `x\`, `''`, `x\\' OR ''='`} {
		h.do("GET", "/jobs?metadata="+url.QueryEscape("k="+evil)+"&backend="+url.QueryEscape(evil), "")
		last := h.temporal.queried[len(h.temporal.queried)-1]
		require.True(t, strings.HasPrefix(last.Query, "WorkflowType = 'ComfyUIWorkflow' AND (ComfyTenant = 'a' OR ComfyTenant IS NULL) AND "), last.Query)
		want := []string{"ComfyUIWorkflow", "a", evil, "k=" + evil}
		if strings.Contains(evil, `\`) { // compared afterwards only
			want = want[:3]
		}
		require.Equal(t, want, literals(t, last.Query))
	}
	h.do("GET", "/jobs", "", "Authorization", "Bearer "+keyB)
	require.Equal(t, "WorkflowType = 'ComfyUIWorkflow' AND ComfyTenant = 'b'", h.temporal.queried[len(h.temporal.queried)-1].Query)
}

// literals reads the strings of a query as Temporal's parser does: a backslash escapes, and a quote doubled is one.
func literals(t *testing.T, query string) []string {
	var all []string
	for i := 0; i < len(query); i++ {
		if query[i] != '\'' {
			continue
		}
		var text strings.Builder
		for i++; ; i++ {
			require.Less(t, i, len(query), "a literal without an end: %s", query)
			if query[i] == '\\' {
				i++
			} else if query[i] == '\'' {
				if i+1 == len(query) || query[i+1] != '\'' {
					break
				}
				i++
			}
			text.WriteByte(query[i])
		}
		all = append(all, text.String())
	}
	return all
}

func TestListSaysWhatStatusSays(t *testing.T) {
	h := newHarness(t)
	run := func(id, tenant string, status enums.WorkflowExecutionStatus, attributes map[string]any) *workflowpb.WorkflowExecutionInfo {
		r := newRun(id, comfy.WorkflowName)
		if status != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			r.end(status)
		}
		payload := func(v any) *commonpb.Payload {
			p, err := converter.GetDefaultDataConverter().ToPayload(v)
			require.NoError(t, err)
			return p
		}
		if tenant != "" {
			r.info.Memo = &commonpb.Memo{Fields: map[string]*commonpb.Payload{comfy.MemoSubmission: payload(comfy.Submission{Tenant: tenant})}}
		}
		r.info.SearchAttributes = &commonpb.SearchAttributes{IndexedFields: map[string]*commonpb.Payload{}}
		for k, v := range attributes {
			r.info.SearchAttributes.IndexedFields[k] = payload(v)
		}
		return r.info
	}
	all := []*workflowpb.WorkflowExecutionInfo{
		run("open", "a", enums.WORKFLOW_EXECUTION_STATUS_RUNNING, map[string]any{comfy.AttrBackend: "url", comfy.AttrMetadata: []string{"k=v", "x=y=z"}}),
		run("a forgery", "b", enums.WORKFLOW_EXECUTION_STATUS_RUNNING, map[string]any{comfy.AttrTenant: "a"}),
		run("a child", "", enums.WORKFLOW_EXECUTION_STATUS_COMPLETED, nil),
		run("canceled", "a", enums.WORKFLOW_EXECUTION_STATUS_CANCELED, nil),
		run("terminated", "a", enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, nil),
		run("timed out", "a", enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT, nil),
		run("failed", "a", enums.WORKFLOW_EXECUTION_STATUS_FAILED, map[string]any{comfy.AttrErrorCode: "node_failed", comfy.AttrMetadata: "k=v"}),
		run("broken", "a", enums.WORKFLOW_EXECUTION_STATUS_FAILED, nil),
	}
	pages := 0
	h.temporal.lists = func(r *workflowservice.ListWorkflowExecutionsRequest) *workflowservice.ListWorkflowExecutionsResponse {
		pages++
		from := len(r.NextPageToken)
		to := min(from+int(r.PageSize), len(all))
		out := &workflowservice.ListWorkflowExecutionsResponse{Executions: all[from:to]}
		if to < len(all) {
			out.NextPageToken = []byte(strings.Repeat("x", to))
		}
		return out
	}
	var got []string
	for cursor := ""; ; {
		a := h.do("GET", "/jobs?limit=3"+cursor, "")
		require.Equal(t, 200, a.status, "%s", a.raw)
		for _, j := range a.body["jobs"].([]any) {
			e := j.(map[string]any)
			code, _ := e["code"].(string)
			got = append(got, e["id"].(string)+" "+e["status"].(string)+" "+code)
		}
		next, more := a.body["cursor"].(string)
		if !more {
			break
		}
		require.Len(t, a.body["jobs"], 3, "a page is full while there is more")
		cursor = "&cursor=" + next
	}
	require.Equal(t, []string{
		"open RUNNING ", "a child COMPLETED ", "canceled FAILED canceled", "terminated FAILED internal",
		"timed out FAILED timeout", "failed FAILED node_failed", "broken FAILED internal",
	}, got)

	a := h.do("GET", "/jobs?metadata=k=v", "")
	require.Len(t, a.body["jobs"], 2)
	e := a.body["jobs"].([]any)[0].(map[string]any)
	require.Equal(t, map[string]any{"k": "v", "x": "y=z"}, e["metadata"])
	require.Equal(t, "url", e["backend"])
	require.NotContains(t, e, "ended_at")
	require.Contains(t, a.body["jobs"].([]any)[1], "expires_at")

	// Where filters leave out what Temporal finds, one request reads no more than so many pages, and says where it is.
	all = make([]*workflowpb.WorkflowExecutionInfo, 40)
	for i := range all {
		all[i] = run("his", "b", enums.WORKFLOW_EXECUTION_STATUS_RUNNING, nil)
	}
	pages = 0
	a = h.do("GET", "/jobs?limit=1", "")
	require.Empty(t, a.body["jobs"])
	require.NotEmpty(t, a.body["cursor"])
	require.Equal(t, maxListPages, pages)
}
