package app_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/comfy"
)

// titled is a submission with what a person wants to see of it.
func titled(color int, title string) map[string]any {
	return map[string]any{"workflow": graph(color, "titled"), "metadata": map[string]string{"title": title, "shot": "12"}}
}

// kinds of jobs that the Temporal UI shows; each has come to its end.
func (d *double) kinds(t *testing.T) map[string]string {
	ids := map[string]string{"good": d.submit(titled(101, "A good one"))}
	d.finish(ids["good"])

	d.comfy.FailNode("EmptyImage", "torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB")
	ids["failed"] = d.submit(titled(102, "A failed one"))
	require.Equal(t, "out_of_memory", d.finish(ids["failed"])["code"])
	d.comfy.FailNode("EmptyImage", "", "")

	ids["canceled"] = d.submit(map[string]any{"workflow": ticking(1), "metadata": map[string]string{"title": "A canceled one"}})
	d.until(ids["canceled"], "running")
	d.do("POST", "/cancel/"+ids["canceled"], nil)
	require.Equal(t, "canceled", d.finish(ids["canceled"])["code"])

	gate := d.comfy.Hold("EmptyImage")
	ids["retried"] = d.submit(titled(103, "A retried one"))
	gate.Reached()
	d.comfy.Restart()
	gate.Open()
	require.EqualValues(t, 2, d.finish(ids["retried"])["attempts"])
	return ids
}

// TestInspection: what the Temporal UI shows of a job, by the calls that it makes itself.
func TestInspection(t *testing.T) {
	d := onDouble(t, nil)
	d.comfy.Step(2 * time.Millisecond)
	ids := d.kinds(t)
	seen := map[string]inspected{}
	for name, id := range ids {
		seen[name] = d.inspect(id)
		require.Contains(t, seen[name].details, "]("+d.url+"/jobs/"+id+")", "the way to its page")
		require.Contains(t, seen[name].details, "**Tenant**: `alice`")
		require.Contains(t, seen[name].attributes, `ComfyBackend="url"`)
	}
	require.Equal(t, "`A good one` · `SaveImage`", seen["good"].summary)
	require.Contains(t, seen["good"].details, "**Labels**: `shot=12`, `title=A good one`")
	require.Contains(t, seen["good"].details, "**Size**: 64 × 48")
	require.Contains(t, seen["good"].current, "**completed**: 1 image, 0 other files, 0 texts; ran for ")
	require.Subset(t, seen["good"].steps, []string{"is a ComfyUI ready for this graph?", "run on url, submission 1"}) // a slow look or store is a step more
	require.NotContains(t, seen["good"].attributes, "ComfyAttempts", "one attempt is not worth a step")

	require.Contains(t, seen["failed"].current, "**failed**: `out_of_memory`: `node 1 (EmptyImage): torch.cuda.OutOfMemoryError: CUDA out of memory.")
	require.Contains(t, seen["failed"].failure, "node 1 (EmptyImage): torch.cuda.OutOfMemoryError: CUDA out of memory.")
	require.Contains(t, seen["failed"].attributes, `ComfyErrorCode="out_of_memory"`)
	require.Contains(t, seen["canceled"].current, "**canceled**: the job was canceled")
	require.Contains(t, seen["canceled"].attributes, `ComfyErrorCode="canceled"`)
	require.Contains(t, seen["retried"].current, "- submission 1 to url was lost: `")
	require.Contains(t, seen["retried"].steps, "pause before submission 2")
	require.Contains(t, seen["retried"].steps, "run on url, submission 2")
	require.Contains(t, seen["retried"].attributes, "ComfyAttempts=2")

	t.Run("filters", func(t *testing.T) { filters(t, d, ids) })
}

// TestInspectionOfAChild: a job that has not come through the API says what it is in its current details.
func TestInspectionOfAChild(t *testing.T) {
	d := onDouble(t, nil)
	run, err := d.temporal().ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "a child", TaskQueue: comfy.TaskQueue}, comfy.WorkflowName,
		comfy.Request{Workflow: graph(111, "child"), Metadata: map[string]string{"title": "The parent's"}})
	require.NoError(t, err)
	require.NoError(t, run.Get(t.Context(), nil))
	seen := d.inspect("a child")
	require.True(t, strings.HasPrefix(seen.current, "`The parent's` · `SaveImage`\n\n**completed**: "), seen.current)
}

// TestLongestInspection: the longest texts are accepted, with and without encryption, and stay within Temporal's limits.
func TestLongestInspection(t *testing.T) {
	for name, vars := range map[string]map[string]string{"plain": nil, "encrypted": {"COMFYD_PAYLOAD_KEYS": strings.Repeat("k", 32) + ":" + keyA}} {
		t.Run(name, func(t *testing.T) {
			d := onDouble(t, vars)
			long := strings.Repeat(`<猫"`, 3000)
			g := map[string]any{"1": map[string]any{"class_type": "EmptyImage", "inputs": map[string]any{"width": 64, "height": 48, "batch_size": 1, "color": 1, "ckpt_name": long, "prompt": long}}}
			for n := range 40 {
				g["s"+strings.Repeat("x", n)] = map[string]any{"class_type": "SaveImage", "inputs": map[string]any{"images": []any{"1", 0}, "filename_prefix": "long"}}
			}
			body := map[string]any{"workflow": g, "metadata": map[string]string{}, "priority": 5, "timeout_seconds": 3600}
			for n := range 8 {
				body["metadata"].(map[string]string)[strings.Repeat("l", n+1)] = strings.Repeat("<", 38)
			}
			var images []any
			for n := range 128 {
				images = append(images, map[string]any{"name": strings.Repeat("i", n+60) + ".png", "image": "AAAA"})
			}
			body["images"] = images
			id := d.submit(body)
			info, err := d.temporal().DescribeWorkflowExecution(t.Context(), id, "")
			require.NoError(t, err)
			m := info.GetExecutionConfig().GetUserMetadata()
			require.LessOrEqual(t, m.GetSummary().Size(), 400, "limit.userMetadataSummarySize")
			require.Greater(t, m.GetSummary().Size(), 200)
			require.LessOrEqual(t, m.GetDetails().Size(), 20000, "limit.userMetadataDetailsSize")
			d.finish(id)
		})
	}
}

// inspected is what a person sees of a job.
type inspected struct {
	summary, details, current, attributes, failure string
	steps                                          []string // the summaries of activities and timers
}

func (d *double) inspect(id string) (seen inspected) {
	d.t.Helper()
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	c := d.temporal()
	info, err := c.DescribeWorkflowExecution(ctx, id, "")
	require.NoError(d.t, err)
	m := info.GetExecutionConfig().GetUserMetadata()
	seen.summary, seen.details = d.text(m.GetSummary()), d.text(m.GetDetails())
	for name, p := range info.GetWorkflowExecutionInfo().GetSearchAttributes().GetIndexedFields() {
		seen.attributes += name + "=" + string(p.GetData()) + "\n"
	}
	v, err := c.QueryWorkflow(ctx, id, "", "__temporal_workflow_metadata")
	require.NoError(d.t, err)
	var now sdk.WorkflowMetadata
	require.NoError(d.t, v.Get(&now))
	seen.current = now.GetCurrentDetails()
	for _, e := range fetch(d.t, c, id).GetEvents() {
		if s := e.GetUserMetadata().GetSummary(); s != nil && e.GetWorkflowExecutionStartedEventAttributes() == nil {
			seen.steps = append(seen.steps, d.text(s))
		}
		if f := e.GetWorkflowExecutionFailedEventAttributes().GetFailure(); f != nil {
			seen.failure = f.GetMessage()
		}
	}
	return seen
}

func (d *double) text(p *commonpb.Payload) (text string) {
	require.NoError(d.t, converter.GetDefaultDataConverter().FromPayload(p, &text))
	return text
}

// bear runs a job as the child of another team's workflow.
func bear(t *testing.T, c client.Client, id string) {
	t.Helper()
	w := worker.New(c, "parents", worker.Options{})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
		ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: id, TaskQueue: comfy.TaskQueue})
		return workflow.ExecuteChildWorkflow(ctx, comfy.WorkflowName, comfy.Request{
			Workflow: json.RawMessage(`{"1":{"class_type":"PreviewAny","inputs":{"source":"a child"}}}`),
		}).Get(ctx, nil)
	}, workflow.RegisterOptions{Name: "Parent"})
	require.NoError(t, w.Start())
	defer w.Stop()
	ctx, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: "parents"}, "Parent")
	require.NoError(t, err)
	require.NoError(t, run.Get(ctx, nil))
}

// filters tries each filter of the docs.
func filters(t *testing.T, d *double, ids map[string]string) {
	c := d.temporal()
	ids["born"] = "born"
	bear(t, c, "born")
	gate := d.comfy.Hold("EmptyImage")
	ids["running"] = d.submit(titled(104, "A running one"))
	gate.Reached()
	defer gate.Open()
	_, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "child", TaskQueue: comfy.TaskQueue}, comfy.WorkflowName,
		comfy.Request{Workflow: graph(105, "child"), Backend: "another"})
	require.NoError(t, err)
	ids["child"] = "child"
	bob := *d.api
	bob.key = other
	ids["bob's"] = bob.submit(map[string]any{"workflow": graph(106, "bob"), "images": withFile(t, "bob")["images"]})
	require.NoError(t, c.TerminateWorkflow(t.Context(), ids["bob's"], "", "a test"))

	docs, err := os.ReadFile(filepath.Join("..", "..", "docs", "temporal-ui.md"))
	require.NoError(t, err)
	rows := regexp.MustCompile("(?m)^\\| ([^|]+) \\| `(WorkflowType[^`]+)` \\|").FindAllStringSubmatch(string(docs), -1)
	want := map[string][]string{
		"waiting or running":                   {"running", "child"},
		"running on a pool":                    {"running"},
		"no pool found yet":                    {"child"},
		"out of memory, since a day":           {"failed"},
		"failed, and it is the operator's":     {},
		"whose receiver was not told":          {},
		"of a tenant, failed":                  {"failed"},
		"with a label":                         {"good", "failed", "retried", "running"},
		"with one of two labels":               {"good", "failed", "retried", "running"},
		"longer than ten minutes":              {"good", "failed", "canceled", "retried", "bob's", "born"}, // with another time, see below
		"needed more than one attempt":         {"retried"},
		"children of other workflows":          {"born"},
		"started by others, no pool found yet": {"child"},
		"ended by an operator or by Temporal":  {"bob's"},
		"canceled, submitted within two times": {"canceled"},
		"used an input file":                   {"bob's"},
	}
	require.Len(t, rows, len(want))
	for _, row := range rows {
		t.Run(row[1], func(t *testing.T) {
			names, known := want[row[1]]
			require.True(t, known)
			query := strings.NewReplacer("'10m'", "'1ms'", "'0123456789ab'", "'"+strings.TrimPrefix(d.stored("inputs/bob/")[0], "inputs/bob/")[:12]+"'").Replace(row[2])
			var expected []string
			for _, n := range names {
				expected = append(expected, ids[n])
			}
			require.EventuallyWithT(t, func(e *assert.CollectT) {
				list, err := c.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query})
				require.NoError(e, err, query)
				var found []string
				for _, x := range list.GetExecutions() {
					found = append(found, x.GetExecution().GetWorkflowId())
				}
				require.ElementsMatch(e, expected, found, query)
			}, 2*time.Minute, 100*time.Millisecond)
		})
	}
}
