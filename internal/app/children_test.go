package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/comfy/files"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// order is what a test's parent starts.
type order struct {
	ID         string
	Request    json.RawMessage
	Policy     enums.ParentClosePolicy
	Retries    int32
	RunTimeout time.Duration
	Memo       map[string]any
}

// parent is a workflow of another team.
func parent(ctx workflow.Context, o order) (*comfy.Result, error) {
	options := workflow.ChildWorkflowOptions{
		WorkflowID: o.ID, TaskQueue: comfy.TaskQueue, ParentClosePolicy: o.Policy, WaitForCancellation: true,
		WorkflowRunTimeout: o.RunTimeout, Memo: o.Memo,
	}
	if o.Retries > 0 {
		options.RetryPolicy = &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, MaximumAttempts: o.Retries}
	}
	var r comfy.Result
	if err := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, options), comfy.WorkflowName, o.Request).Get(ctx, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// family is a comfyd, and a worker of another team beside it.
type family struct {
	*double
	c client.Client
}

func newFamily(t *testing.T, vars map[string]string) *family {
	t.Helper()
	f := &family{double: onDouble(t, vars)}
	f.c = f.temporal()
	w := worker.New(f.c, "parents", worker.Options{})
	w.RegisterWorkflowWithOptions(parent, workflow.RegisterOptions{Name: "parent"})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	return f
}

func (f *family) start(o order) client.WorkflowRun {
	f.t.Helper()
	run, err := f.c.ExecuteWorkflow(f.t.Context(), client.StartWorkflowOptions{ID: "parent-of-" + o.ID, TaskQueue: "parents"}, "parent", o)
	require.NoError(f.t, err)
	return run
}

// fails is the failure with which a parent ends.
func (f *family) fails(o order) comfy.Failure {
	f.t.Helper()
	ctx, done := context.WithTimeout(f.t.Context(), time.Minute)
	defer done()
	err := f.start(o).Get(ctx, nil)
	var app *temporal.ApplicationError
	require.True(f.t, errors.As(err, &app), "%v", err)
	var failure comfy.Failure
	require.NoError(f.t, app.Details(&failure))
	require.Equal(f.t, app.Type(), string(failure.Code))
	return failure
}

func input(t *testing.T, r comfy.Request) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(r)
	require.NoError(t, err)
	return raw
}

// run waits for a run of a job that is another than the one before.
func (f *family) run(id, before string) (run string) {
	f.t.Helper()
	require.Eventually(f.t, func() bool {
		d, err := f.c.DescribeWorkflowExecution(f.t.Context(), id, "")
		run = d.GetWorkflowExecutionInfo().GetExecution().GetRunId()
		return err == nil && run != before
	}, 2*time.Minute, 20*time.Millisecond)
	return run
}

func (f *family) prompts() []string {
	f.t.Helper()
	return prompts(f.t, f.comfy)
}

// prompts are the IDs of what ComfyUI was sent.
func prompts(t *testing.T, s *fakecomfy.Server) (ids []string) {
	t.Helper()
	for _, raw := range s.Posted() {
		var p struct {
			ID string `json:"prompt_id"`
		}
		require.NoError(t, json.Unmarshal(raw, &p))
		ids = append(ids, p.ID)
	}
	return ids
}

// TestParentClosePolicy: whatever a parent asks for, no GPU works for nobody.
func TestParentClosePolicy(t *testing.T) {
	f := newFamily(t, nil)
	for name, c := range map[string]struct {
		policy       enums.ParentClosePolicy
		status, code string
	}{
		"REQUEST_CANCEL": {enums.PARENT_CLOSE_POLICY_REQUEST_CANCEL, "FAILED", "canceled"},
		"TERMINATE":      {enums.PARENT_CLOSE_POLICY_TERMINATE, "FAILED", "internal"},
		"ABANDON":        {enums.PARENT_CLOSE_POLICY_ABANDON, "COMPLETED", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f.comfy.Step(10 * time.Millisecond)
			if c.code == "" { // it runs to its end
				f.comfy.Step(time.Millisecond)
			}
			before := len(f.comfy.Interrupts())
			run := f.start(order{ID: name, Request: input(t, comfy.Request{Workflow: ticking(len(name))}), Policy: c.policy})
			require.Eventually(t, func() bool { return f.do("GET", "/status/"+name, nil).body["phase"] == "running" }, 2*time.Minute, 20*time.Millisecond)
			require.NoError(t, f.c.TerminateWorkflow(t.Context(), run.GetID(), "", "the parent ends"))
			end := f.finish(name)
			require.Equal(t, c.status, end["status"], "%v", end)
			if c.code != "" {
				require.Equal(t, c.code, end["code"])
			}
			f.rest()
			require.Equal(t, c.policy != enums.PARENT_CLOSE_POLICY_ABANDON, len(f.comfy.Interrupts()) > before, "who stopped the prompt")
			require.Equal(t, end, f.finish(name))
		})
	}
}

// TestRetriesOfAParent: its retry policy starts jobs again that comfyd or a GPU has failed, each with prompts of its own,
// and none that fails by its own fault.
func TestRetriesOfAParent(t *testing.T) {
	f := newFamily(t, nil)
	t.Run("what comfyd is to blame for", func(t *testing.T) {
		f.comfy.Stop()
		require.Eventually(t, func() bool { return f.do("GET", "/readyz", nil).code == http.StatusServiceUnavailable }, 2*time.Minute, 50*time.Millisecond)
		run := f.start(order{ID: "again", Request: input(t, comfy.Request{Workflow: graph(201, "again"), StartTimeoutSeconds: 1}), Retries: 20})
		first := f.run("again", "")
		second := f.run("again", first)
		f.comfy.Start()
		var r comfy.Result
		require.NoError(t, run.Get(t.Context(), &r))
		require.Equal(t, 1, r.Attempts)
		require.NotContains(t, f.prompts(), activities.PromptID(activities.Job{ID: "again", RunID: first}, 1))
		last := f.run("again", "")
		require.Equal(t, []string{activities.PromptID(activities.Job{ID: "again", RunID: last}, 1)}, f.prompts(), "%s, then %s", first, second)
		require.Equal(t, "COMPLETED", f.finish("again")["status"])
	})
	t.Run("what the job is to blame for", func(t *testing.T) {
		f.comfy.FailNode("ImageAddNoise", "ValueError", "no")
		before := len(f.prompts())
		failure := f.fails(order{ID: "once", Retries: 3, Request: input(t, comfy.Request{Workflow: json.RawMessage(
			`{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":48,"batch_size":1,"color":202}},"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":1,"strength":0.5}},
			"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"x"}}}`)})})
		require.Equal(t, comfy.NodeFailed, failure.Code)
		require.Equal(t, "2", failure.NodeID)
		require.Len(t, f.prompts(), before+1)
	})
	t.Run("a run that Temporal ends", func(t *testing.T) {
		f.comfy.Step(time.Second)
		before := len(f.prompts())
		run := f.start(order{ID: "late", Request: input(t, comfy.Request{Workflow: ticking(3)}), Retries: 5, RunTimeout: 4 * time.Second})
		f.comfy.Await("a prompt", func() bool { return len(f.prompts()) > before })
		first := f.prompts()[before]
		f.comfy.Await("the first run's prompt is stopped", func() bool { return slices.Contains(f.comfy.Interrupts(), first) })
		f.comfy.Step(time.Microsecond)
		require.NoError(t, run.Get(t.Context(), nil))
		require.NotEqual(t, first, f.prompts()[before+1])
	})
}

// TestWhoseAChildIs: configuration says so, and nothing that a parent says of it.
func TestWhoseAChildIs(t *testing.T) {
	f := newFamily(t, map[string]string{"COMFYD_CHILD_TENANT": "bob"})
	bob := &family{double: &double{api: &api{t: t, url: f.url, key: other, app: f.app}}}
	upload := func(key string) comfy.Input {
		c := files.Client{URL: f.url, Key: key}
		in, err := c.Upload(t.Context(), "photo.png", bytes.NewReader(testdata(t, "inputs/gradient.png")))
		require.NoError(t, err)
		return in
	}
	load := json.RawMessage(`{"1":{"class_type":"LoadImage","inputs":{"image":"photo.png"}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"x"}}}`)
	alices, bobs := upload(secret), upload(other)

	var r comfy.Result
	run := f.start(order{
		ID: "his", Request: input(t, comfy.Request{Workflow: load, Images: []comfy.Input{{Name: "photo.png", Ref: bobs.Ref}}, Metadata: map[string]string{"shot": "7"}}),
		Memo: map[string]any{comfy.MemoSubmission: comfy.Submission{Tenant: "alice", Digest: "x"}},
	})
	require.NoError(t, run.Get(t.Context(), &r))
	require.Equal(t, http.StatusNotFound, f.do("GET", "/status/his", nil).code, "not alice's, whatever its memo says")
	require.Equal(t, "COMPLETED", bob.finish("his")["status"])
	require.Contains(t, bob.listed("&metadata=shot%3D7"), "his")
	require.NotContains(t, f.listed(""), "his")

	// Alice's upload is not to be had, and neither is the output of a job of hers.
	theft := func(id string, in comfy.Input) {
		failure := f.fails(order{ID: id, Request: input(t, comfy.Request{Workflow: load, Images: []comfy.Input{in}}),
			Memo: map[string]any{comfy.MemoSubmission: comfy.Submission{Tenant: "alice", Digest: "x"}}})
		require.Equal(t, comfy.InvalidWorkflow, failure.Code, "%+v", failure)
		require.Contains(t, failure.Message, "no such file")
	}
	theft("input", comfy.Input{Name: "photo.png", Ref: alices.Ref})
	hers := f.submit(map[string]any{"workflow": graph(210, "hers")})
	sum := outputs(t, f.finish(hers))[0]["sha256"].(string)
	theft("output", comfy.Input{Name: "photo.png", Ref: comfy.OutputPrefix(hers) + sum})

	// The output of a child is, and so is that of a job that bob has sent himself: by reference.
	next := input(t, comfy.Request{Workflow: load, Images: []comfy.Input{r.Images[0].AsInput("photo.png")}})
	require.NoError(t, f.start(order{ID: "next", Request: next}).Get(t.Context(), &r))
	require.Equal(t, 96, r.Images[0].Width)
	sent := bob.submit(map[string]any{"workflow": graph(211, "sent")})
	sum = outputs(t, bob.finish(sent))[0]["sha256"].(string)
	next = input(t, comfy.Request{Workflow: load, Images: []comfy.Input{{Name: "photo.png", Ref: comfy.OutputPrefix(sent) + sum}}})
	require.NoError(t, f.start(order{ID: "last", Request: next}).Get(t.Context(), &r))
	require.Equal(t, 64, r.Images[0].Width)
}

// TestAnInputThatCannotBeRead is the child's failure, with a code like any other.
func TestAnInputThatCannotBeRead(t *testing.T) {
	f := newFamily(t, nil)
	for name, raw := range map[string]string{
		"a type":       `{"workflow": {}, "timeout_seconds": "soon"}`,
		"no object":    `"a picture of a cat"`,
		"both":         `{"workflow": {"1": {}}, "workflow_ref": "x"}`,
		"no workflow":  `{}`,
		"a large file": fmt.Sprintf(`{"workflow": {"1": {"class_type": "EmptyImage", "inputs": {"x": %q}}}}`, strings.Repeat("x", comfy.MaxInlineWorkflow)),
	} {
		t.Run(name, func(t *testing.T) {
			failure := f.fails(order{ID: strings.ReplaceAll(name, " ", "-"), Request: json.RawMessage(raw)})
			require.Equal(t, comfy.InvalidWorkflow, failure.Code)
			require.NotEmpty(t, failure.Message)
			end := f.finish(strings.ReplaceAll(name, " ", "-"))
			require.Equal(t, "invalid_workflow", end["code"])
			require.Equal(t, failure.Message, end["error"])
		})
	}
}
