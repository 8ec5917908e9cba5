package app_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/comfyd/comfyd/comfy"
)

// hookReceiver is told of jobs. Each message must be signed with the secret.
type hookReceiver struct {
	*httptest.Server
	t      *testing.T
	secret string

	mu     sync.Mutex
	closed chan struct{}               // until it is, the first attempt of each job is refused, and others wait; nil: none
	bodies map[string][]map[string]any // by the job
	ids    map[string]map[string]bool  // of messages, by the job
	last   map[string]string           // message, by the job
	tries  map[string]int              // also those that are refused
}

func newHookReceiver(t *testing.T) *hookReceiver {
	r := &hookReceiver{t: t, bodies: map[string][]map[string]any{}, ids: map[string]map[string]bool{}, last: map[string]string{}, tries: map[string]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *hookReceiver) serve(w http.ResponseWriter, q *http.Request) {
	raw, _ := io.ReadAll(q.Body)
	var body map[string]any
	verifier, err := standardwebhooks.NewWebhook(r.secret)
	if err == nil {
		err = verifier.Verify(raw, q.Header)
	}
	if err == nil {
		err = json.Unmarshal(raw, &body)
	}
	if err != nil {
		r.t.Errorf("a message that is none: %v", err)
		return
	}
	id, message := body["data"].(map[string]any)["id"].(string), q.Header.Get("webhook-id")
	r.mu.Lock()
	r.tries[id]++
	first, closed := r.tries[id] == 1, r.closed
	if r.ids[id] == nil {
		r.ids[id] = map[string]bool{}
	}
	r.ids[id][message], r.last[id] = true, message
	r.mu.Unlock()
	if closed != nil && !first {
		select {
		case <-closed:
		case <-q.Context().Done():
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if closed != nil && first || r.last[id] != message { // what has given way to another message waited in vain
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "not today")
		return
	}
	r.bodies[id] = append(r.bodies[id], body)
}

// shut refuses the first attempt of each job, and holds the others until open is called.
func (r *hookReceiver) shut() (open func()) {
	closed := make(chan struct{})
	set := func(c chan struct{}) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.closed = c
	}
	set(closed)
	open = sync.OnceFunc(func() {
		set(nil)
		close(closed)
	})
	r.t.Cleanup(open)
	return open
}

// told are the messages about a job, once there are so many.
func (r *hookReceiver) told(id string, n int) (bodies []map[string]any) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		bodies = r.bodies[id]
		return len(bodies) >= n
	}, 2*time.Minute, 20*time.Millisecond, "%d messages about %s", n, id)
	require.Len(r.t, bodies, n)
	return bodies
}

func (r *hookReceiver) tried(id string, n int) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.tries[id] >= n
	}, 2*time.Minute, 20*time.Millisecond, "%d attempts about %s", n, id)
}

// messages is how many different ones there were.
func (r *hookReceiver) messages(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ids[id])
}

func (a *api) webhookIs(id, state string) (log map[string]any) {
	a.t.Helper()
	require.Eventually(a.t, func() bool {
		log = a.do("GET", "/jobs/"+id+"/webhook", nil).body
		return log["state"] == state
	}, 2*time.Minute, 20*time.Millisecond, "%s: %v", state, log)
	return log
}

// executions are what Temporal lists.
func (d *double) executions(query string) []*workflow.WorkflowExecutionInfo {
	d.t.Helper()
	list, err := d.temporal().ListWorkflow(d.t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query})
	require.NoError(d.t, err)
	return list.GetExecutions()
}

// TestWebhooks: every end is told, once; nothing of it can be read in an encrypted Temporal; it goes with its job.
func TestWebhooks(t *testing.T) {
	r := newHookReceiver(t)
	f := newFamily(t, map[string]string{"COMFYD_PRIVATE_NETWORKS": "127.0.0.1/32", "COMFYD_PAYLOAD_KEYS": "a:" + keyA})
	r.secret = f.do("GET", "/webhooks/secret", nil).body["secrets"].([]any)[0].(string)
	hook := r.URL + "/hook?token=walrus"
	with := func(body map[string]any) map[string]any {
		body["webhook_url"] = hook
		return body
	}
	f.comfy.Step(2 * time.Millisecond)

	// A receiver that is down costs the job nothing, and hears of it later.
	open := r.shut()
	completed := f.submit(with(map[string]any{"workflow": graph(201, "webhook")}))
	status := f.finish(completed)
	require.Equal(t, "COMPLETED", status["status"])
	r.tried(completed, 1)
	f.webhookIs(completed, "pending")
	open()
	body := r.told(completed, 1)[0]
	require.Equal(t, "job.completed", body["type"])
	image := body["data"].(map[string]any)["output"].(map[string]any)["images"].([]any)[0].(map[string]any)
	require.Equal(t, string(bytesOf(t, outputs(t, status)[0])), get(t, image["url"].(string), "", 200))
	log := f.webhookIs(completed, "delivered")
	attempts := log["attempts"].([]any)
	require.Len(t, attempts, 2, "the second comes after five seconds: %v", log)
	require.Equal(t, "not today", attempts[0].(map[string]any)["answer"])
	require.Equal(t, 1, r.messages(completed), "all attempts have one webhook-id")
	record := f.record(comfy.WebhookWorkflowID(completed))
	require.Contains(t, record.text, "binary/encrypted")
	for _, secret := range []string{"walrus", "not today", r.secret, "signature="} {
		require.NotContains(t, record.text, secret)
	}

	f.comfy.FailNode("EmptyImage", "ValueError", "it broke")
	failed := f.submit(with(map[string]any{"workflow": graph(202, "webhook")}))
	require.Equal(t, "job.failed", r.told(failed, 1)[0]["type"])
	f.comfy.FailNode("EmptyImage", "", "")
	canceled := f.submit(with(map[string]any{"workflow": ticking(201)}))
	f.until(canceled, "running")
	f.do("POST", "/cancel/"+canceled, nil)
	require.Equal(t, "job.canceled", r.told(canceled, 1)[0]["type"])
	require.Equal(t, "canceled", f.finish(canceled)["code"])

	// What an operator terminates cannot tell; a replay does.
	terminated := f.submit(with(map[string]any{"workflow": ticking(202)}))
	f.until(terminated, "running")
	require.NoError(t, f.c.TerminateWorkflow(t.Context(), terminated, "", "the test"))
	require.Equal(t, "internal", f.finish(terminated)["code"])
	f.webhookIs(terminated, "unsent")
	require.Equal(t, 202, f.do("POST", "/jobs/"+terminated+"/webhook/replay", nil).code)
	require.Equal(t, "internal", r.told(terminated, 1)[0]["data"].(map[string]any)["code"])

	// A replay has the same id, and the log both.
	require.Equal(t, 202, f.do("POST", "/jobs/"+completed+"/webhook/replay", nil).code)
	r.told(completed, 2)
	log = f.webhookIs(completed, "delivered")
	require.Len(t, log["attempts"], 3)
	require.Equal(t, 1, r.messages(completed))

	// The log goes with its job: all its runs.
	f.delete(completed)
	require.Equal(t, 404, f.do("GET", "/jobs/"+completed+"/webhook", nil).code)
	require.Eventually(t, func() bool {
		return len(f.executions("WorkflowId = 'webhook/"+completed+"'")) == 0
	}, 2*time.Minute, 50*time.Millisecond)
}

// TestWebhooksOfChildren: a child names its own receiver. Of what Temporal itself ends, a sweep tells.
func TestWebhooksOfChildren(t *testing.T) {
	r := newHookReceiver(t)
	f := newFamily(t, map[string]string{"COMFYD_PRIVATE_NETWORKS": "127.0.0.1/32"})
	r.secret = f.do("GET", "/webhooks/secret", nil).body["secrets"].([]any)[0].(string)
	ctx, done := context.WithTimeout(t.Context(), 2*time.Minute)
	defer done()
	child := func(id string, req comfy.Request) order {
		if req.WebhookURL == "" {
			req.WebhookURL = r.URL
		}
		return order{ID: id, Request: input(t, req)}
	}
	require.NoError(t, f.start(child("a-child", comfy.Request{Workflow: graph(211, "child")})).Get(ctx, nil))
	body := r.told("a-child", 1)[0]
	require.Equal(t, "job.completed", body["type"])
	image := body["data"].(map[string]any)["output"].(map[string]any)["images"].([]any)[0].(map[string]any)
	require.NotEmpty(t, get(t, image["url"].(string), "", 200))

	terminated := f.submit(map[string]any{"workflow": ticking(211), "webhook_url": r.URL})
	f.until(terminated, "running")
	require.NoError(t, f.c.TerminateWorkflow(ctx, terminated, "", "the test"))
	require.Equal(t, "internal", f.finish(terminated)["code"])
	f.webhookIs(terminated, "unsent")
	require.Eventually(t, func() bool { return len(f.executions("ExecutionStatus = 'Terminated'")) == 1 }, 2*time.Minute, 20*time.Millisecond)
	f.sweep()
	require.Equal(t, "job.failed", r.told(terminated, 1)[0]["type"])

	failure := f.fails(child("refused", comfy.Request{Workflow: graph(212, "child"), WebhookURL: "https://10.0.0.1/hook"}))
	require.Equal(t, comfy.InvalidWorkflow, failure.Code)
	require.Contains(t, failure.Message, "webhook_url")
	f.webhookIs("refused", "refused")

	// A parent's retry policy starts it again: the first end is none.
	again := child("again", comfy.Request{Workflow: graph(213, "child"), Backend: "nowhere", StartTimeoutSeconds: 1})
	again.Retries = 2
	require.Equal(t, comfy.BackendUnavailable, f.fails(again).Code)
	r.told("again", 1)
	require.Equal(t, 1, r.messages("again"))

	// The ID is used again while the first message has not been taken yet: it gives way.
	open := r.shut()
	require.NoError(t, f.start(child("twice", comfy.Request{Workflow: graph(214, "child")})).Get(ctx, nil))
	r.tried("twice", 1)
	o := child("twice", comfy.Request{Workflow: graph(215, "child"), Backend: "nowhere", StartTimeoutSeconds: 1})
	require.Equal(t, comfy.BackendUnavailable, f.fails(o).Code)
	require.Eventually(t, func() bool { return r.messages("twice") == 2 }, 2*time.Minute, 20*time.Millisecond)
	require.EventuallyWithT(t, func(e *assert.CollectT) { // lists come a little later than what they list
		states := map[enums.WorkflowExecutionStatus]int{}
		for _, x := range f.executions("WorkflowId = 'webhook/twice'") {
			states[x.GetStatus()]++
		}
		require.Equal(e, map[enums.WorkflowExecutionStatus]int{enums.WORKFLOW_EXECUTION_STATUS_TERMINATED: 1, enums.WORKFLOW_EXECUTION_STATUS_RUNNING: 1}, states)
	}, 2*time.Minute, 20*time.Millisecond)
	open()
	require.Equal(t, "job.failed", r.told("twice", 1)[0]["type"])
}
