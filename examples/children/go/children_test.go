package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
)

func TestPipeline(t *testing.T) {
	w := start(t)
	run := w.run(Pipeline, order)
	var out Output
	must(t, run.Get(w.ctx, &out))
	if out.Picked.Width != 256 {
		t.Errorf("picked: %+v", out.Picked)
	}
	canceled := 0
	for _, b := range out.Branches {
		st := w.ended(b.Job) // a child is a job like any other
		switch {
		case b.Name == "x512":
			if b.Made == nil || b.Made.Width != 512 || b.Tries != 1 || st["status"] != "COMPLETED" {
				t.Errorf("%+v: %v", b, st)
			}
		case b.Name == "print":
			if b.Made == nil || b.Made.Width != 768 || b.Tries != 2 {
				t.Errorf("%+v: it is made by its second graph", b)
			}
		case b.Made == nil:
			canceled++
			if b.Error.Code != comfy.Canceled || st["code"] != "canceled" {
				t.Errorf("%+v, %+v: %v", b, b.Error, st)
			}
		}
	}
	if canceled == 0 {
		t.Error("no poster was canceled")
	}
	if ids := w.children(run); len(ids) != order.Candidates+3+order.Posters { // one branch took two
		t.Errorf("children: %v", ids)
	}
	jobs, _ := w.get("/jobs?limit=100&metadata=step=candidate")["jobs"].([]any)
	if len(jobs) < 4 {
		t.Errorf("the list has %d candidates", len(jobs))
	}
}

func TestAHundredAtOnce(t *testing.T) {
	w := start(t)
	began := time.Now()
	run := w.run(Fan, 100)
	var done int
	must(t, run.Get(w.ctx, &done))
	if done != 100 {
		t.Errorf("%d of 100 made a picture", done)
	}
	t.Logf("100 children in %s", time.Since(began).Round(100*time.Millisecond))
}

func TestCancelThroughTheParent(t *testing.T) {
	w := start(t)
	run := w.run(Single, w.slow())
	id := w.child(run)
	w.until(id, "running")
	must(t, w.c.CancelWorkflow(w.ctx, run.GetID(), ""))
	err := run.Get(w.ctx, nil)
	if !temporal.IsCanceledError(err) {
		t.Fatalf("the parent ends with %v", err)
	}
	if f := failureOf(err); f.Code != comfy.Canceled || f.Attempts != 1 || f.Metrics.ExecutionMS == 0 {
		t.Errorf("%+v: the job had run", f)
	}
	if st := w.ended(id); st["code"] != "canceled" {
		t.Errorf("%v", st)
	}
}

// child waits for the only child of a run.
func (t *team) child(run client.WorkflowRun) string {
	t.Helper()
	for t.ctx.Err() == nil {
		if ids := t.children(run); len(ids) == 1 {
			return ids[0]
		}
		pause(t.ctx, 50*time.Millisecond)
	}
	t.Fatal("it starts no child")
	return ""
}

func TestFailures(t *testing.T) {
	w := start(t)
	for name, c := range map[string]struct {
		req  comfy.Request
		want comfy.Failure
	}{
		"a node raises":       {comfy.Request{Workflow: broken()}, comfy.Failure{Code: comfy.NodeFailed, NodeID: "4", Attempts: 1}},
		"no such node":        {comfy.Request{Workflow: json.RawMessage(`{"1": {"class_type": "Nowhere", "inputs": {}}}`)}, comfy.Failure{Code: comfy.InvalidWorkflow}},
		"no such file":        {comfy.Request{Workflow: upscale(64), Images: []comfy.Input{{Name: "picked.png", Ref: "inputs/somebody/" + strings.Repeat("0", 64)}}}, comfy.Failure{Code: comfy.InvalidWorkflow}},
		"too large to travel": {comfy.Request{Workflow: fmt.Appendf(nil, `{"1": {"class_type": %q, "inputs": {}}}`, strings.Repeat("x", comfy.MaxInlineWorkflow))}, comfy.Failure{Code: comfy.InvalidWorkflow}},
		"too long":            {func() comfy.Request { r := w.slow(); r.TimeoutSeconds = 1; return r }(), comfy.Failure{Code: comfy.Timeout, Attempts: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &team{T: t, ctx: w.ctx, c: w.c, files: w.files}
			err := w.run(Single, c.req).Get(w.ctx, nil)
			f := failureOf(err)
			if f.Code != c.want.Code || f.NodeID != c.want.NodeID || f.Attempts != c.want.Attempts {
				t.Errorf("%+v of %v", f, err)
			}
			if f.Message == "" {
				t.Error("it does not say why")
			}
		})
	}
}

// TestALargeGraph goes to comfyd over HTTP and by Temporal as a reference.
func TestALargeGraph(t *testing.T) {
	w := start(t)
	raw := fmt.Appendf(nil, `{"9": {"class_type": "PrimitiveString", "inputs": {"value": %q}}, %s`, strings.Repeat("long ", 400_000), string(clouds(7, 0.3))[1:])
	in, err := w.files.Upload(w.ctx, "graph.json", bytes.NewReader(raw))
	must(t, err)
	var r comfy.Result
	must(t, w.run(Single, comfy.Request{WorkflowRef: in.Ref}).Get(w.ctx, &r))
	if len(r.Images) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestNexusFromAnotherNamespace(t *testing.T) {
	home := start(t)
	home.namespace("callers")
	w := startIn(t, "callers")
	var r comfy.Result
	must(t, w.run(ByNexus, comfy.Request{Workflow: clouds(11, 0.5)}).Get(w.ctx, &r))
	if len(r.Images) != 1 || r.Images[0].Width != 256 {
		t.Errorf("%+v", r)
	}

	err := w.run(ByNexus, comfy.Request{Workflow: broken()}).Get(w.ctx, nil)
	var op *temporal.NexusOperationError
	if f := failureOf(err); !errors.As(err, &op) || f.Code != comfy.NodeFailed || f.NodeID != "4" {
		t.Errorf("%+v of %v", f, err)
	}

	run := w.run(ByNexus, w.slow())
	id := w.operation(run)
	home.until(id, "running")
	must(t, w.c.CancelWorkflow(w.ctx, run.GetID(), ""))
	if err := run.Get(w.ctx, nil); !temporal.IsCanceledError(err) {
		t.Errorf("the caller ends with %v", err)
	}
	if st := home.ended(id); st["code"] != "canceled" {
		t.Errorf("the job of a canceled operation: %v", st)
	}
}

// operation is the job behind a Nexus operation: the newest one that is open.
func (t *team) operation(run client.WorkflowRun) string {
	t.Helper()
	for t.ctx.Err() == nil {
		jobs, _ := t.get("/jobs?status=RUNNING")["jobs"].([]any)
		for _, j := range jobs {
			if id, _ := j.(map[string]any)["id"].(string); strings.HasPrefix(id, "nexus-") {
				return id
			}
		}
		pause(t.ctx, 50*time.Millisecond)
	}
	t.Fatalf("no job of %s is listed", run.GetID())
	return ""
}

func TestEveryNight(t *testing.T) {
	w := start(t)
	req := comfy.Request{Workflow: clouds(3, 0.5), Metadata: map[string]string{"step": "nightly"}}
	must(t, nightly(w.ctx, w.c, req))
	must(t, nightly(w.ctx, w.c, req)) // it is there
	schedule := w.c.ScheduleClient().GetHandle(w.ctx, nightlyID)
	defer schedule.Delete(w.ctx)
	must(t, schedule.Trigger(w.ctx, client.ScheduleTriggerOptions{Overlap: enums.SCHEDULE_OVERLAP_POLICY_ALLOW_ALL}))
	var id string
	for w.ctx.Err() == nil && id == "" {
		found, err := w.c.ListWorkflow(w.ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: "WorkflowId STARTS_WITH '" + nightlyID + "-'"})
		must(t, err)
		for _, e := range found.GetExecutions() {
			id = e.GetExecution().GetWorkflowId()
		}
		pause(w.ctx, 50*time.Millisecond)
	}
	var r comfy.Result
	must(t, w.c.GetWorkflow(w.ctx, id, "").Get(w.ctx, &r))
	if st := w.ended(id); st["status"] != "COMPLETED" {
		t.Errorf("%s: %v", id, st)
	}
	body, err := w.files.Open(w.ctx, r.Images[0])
	must(t, err)
	defer body.Close()
	if raw, err := io.ReadAll(body); err != nil || int64(len(raw)) != r.Images[0].SizeBytes {
		t.Errorf("%d bytes: %v", len(raw), err)
	}
}
