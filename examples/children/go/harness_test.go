package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/comfy/files"
)

// limit bounds each test: a ComfyUI on a busy CPU takes its time.
const limit = 10 * time.Minute

// team is this team's worker, beside a comfyd that runs.
type team struct {
	*testing.T
	ctx   context.Context
	c     client.Client
	files files.Client
}

// start skips where there is no comfyd: scripts/children.sh starts one and sets the variables.
func start(t *testing.T) *team {
	t.Helper()
	return startIn(t, client.DefaultNamespace)
}

func startIn(t *testing.T, namespace string) *team {
	t.Helper()
	if os.Getenv("COMFYD_URL") == "" {
		t.Skip("COMFYD_URL is not set: scripts/children.sh starts a comfyd and sets it")
	}
	ctx, done := context.WithTimeout(context.Background(), limit)
	t.Cleanup(done)
	c, err := client.DialContext(ctx, client.Options{HostPort: os.Getenv("TEMPORAL_ADDRESS"), Namespace: namespace})
	must(t, err)
	t.Cleanup(c.Close)
	w := newWorker(c)
	must(t, w.Start())
	t.Cleanup(w.Stop)
	return &team{T: t, ctx: ctx, c: c, files: files.Client{URL: os.Getenv("COMFYD_URL"), Key: os.Getenv("COMFYD_API_KEY")}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t *team) run(workflow any, input any) client.WorkflowRun {
	t.Helper()
	run, err := t.c.ExecuteWorkflow(t.ctx, client.StartWorkflowOptions{TaskQueue: taskQueue}, workflow, input)
	must(t.T, err)
	return run
}

// get is comfyd's own answer, over HTTP.
func (t *team) get(path string) (status map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.ctx, http.MethodGet, t.files.URL+path, nil)
	must(t.T, err)
	req.Header.Set("Authorization", "Bearer "+t.files.Key)
	res, err := http.DefaultClient.Do(req)
	must(t.T, err)
	defer res.Body.Close()
	must(t.T, json.NewDecoder(res.Body).Decode(&status))
	return status
}

// ended is the status of a job whose end we know of: without wait=, it may be one that comfyd has told a moment before.
func (t *team) ended(id string) map[string]any {
	t.Helper()
	return t.get("/status/" + id + "?wait=30")
}

// children are the IDs of the children that a run has started, in that order.
func (t *team) children(run client.WorkflowRun) (ids []string) {
	t.Helper()
	for it := t.c.GetWorkflowHistory(t.ctx, run.GetID(), run.GetRunID(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
		e, err := it.Next()
		must(t.T, err)
		if a := e.GetStartChildWorkflowExecutionInitiatedEventAttributes(); a != nil {
			ids = append(ids, a.GetWorkflowId())
		}
	}
	return ids
}

// until polls a job until it is in a phase; one that has ended comes to none.
func (t *team) until(id, phase string) {
	t.Helper()
	for t.ctx.Err() == nil {
		switch st := t.get("/status/" + id); {
		case st["phase"] == phase:
			return
		case st["status"] == string(comfy.Completed), st["status"] == string(comfy.Failed):
			t.Fatalf("job %s has ended, and was not seen %s: %v", id, phase, st)
		}
		pause(t.ctx, 50*time.Millisecond)
	}
	t.Fatalf("job %s is never %s: %v", id, phase, t.get("/status/"+id))
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// slow is a job that takes far longer than it is looked for here, with the file that it reads: each test of it stops it.
func (t *team) slow() comfy.Request {
	t.Helper()
	photo, err := os.Open("testdata/photo.png")
	must(t.T, err)
	defer photo.Close()
	in, err := t.files.Upload(t.ctx, "picked.png", photo)
	must(t.T, err)
	return comfy.Request{Workflow: poster(int(time.Now().UnixNano()%500), 300), Images: []comfy.Input{in}} // ComfyUI caches what it has run
}

// namespace makes one for a caller from elsewhere.
func (t *team) namespace(name string) {
	t.Helper()
	_, err := t.c.WorkflowService().RegisterNamespace(t.ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	})
	if _, there := err.(*serviceerror.NamespaceAlreadyExists); err != nil && !there {
		t.Fatal(err)
	}
	for t.ctx.Err() == nil { // the server's parts hear of it one by one
		if _, err = t.c.CountWorkflow(t.ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: name}); err == nil {
			return
		}
		pause(t.ctx, 100*time.Millisecond)
	}
	t.Fatal(fmt.Errorf("namespace %s cannot be used: %w", name, err))
}
