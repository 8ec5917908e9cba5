package api

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/comfyd/comfyd/comfy"
)

// receiver notes what a webhook brings and verifies it as its owner would.
type receiver struct {
	*httptest.Server
	t      *testing.T
	answer atomic.Int64 // the HTTP status
	calls  atomic.Int64
	header http.Header
	raw    []byte
	body   map[string]any
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t}
	r.answer.Store(200)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.calls.Add(1)
		r.raw, _ = io.ReadAll(q.Body)
		r.header, r.body = q.Header, map[string]any{}
		_ = json.Unmarshal(r.raw, &r.body)
		w.WriteHeader(int(r.answer.Load()))
	}))
	t.Cleanup(r.Close)
	return r
}

// withWebhook starts a job that names a receiver.
func (h *harness) withWebhook(url string, headers ...string) (string, *fakeRun) {
	h.t.Helper()
	a := h.submit(`{"workflow":`+graphJSON+`,"webhook_url":"`+url+`"}`, headers...)
	require.Equal(h.t, 202, a.status, "%s", a.raw)
	id := a.body["id"].(string)
	run, err := h.temporal.get(id)
	require.NoError(h.t, err)
	return id, run
}

func (h *harness) deliver(run *fakeRun) *comfy.Delivery {
	h.t.Helper()
	d, err := h.server.Deliver(h.t.Context(), webhookOf(run))
	require.NoError(h.t, err)
	return d
}

func webhookOf(run *fakeRun) comfy.Webhook {
	return comfy.Webhook{JobID: run.info.Execution.WorkflowId, RunID: run.info.Execution.RunId, URL: run.request.WebhookURL}
}

// TestWebhookTellsTheStatus of every end, signed, with links that work.
func TestWebhookTellsTheStatus(t *testing.T) {
	h, r := newHarness(t), newReceiver(t)
	h.setClock(time.Now().Truncate(time.Second)) // links are the same in each answer
	secret := h.do("GET", "/webhooks/secret", "").body["secrets"].([]any)[0].(string)
	require.NotEqual(t, secret, h.do("GET", "/webhooks/secret", "", "Authorization", "Bearer "+keyB).body["secrets"].([]any)[0])
	verifier, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)

	id, run := h.withWebhook(r.URL)
	_, err = h.server.Deliver(t.Context(), webhookOf(run))
	require.ErrorIs(t, err, errOpen, "its end comes first")
	require.Zero(t, r.calls.Load())
	raw := randomBytes(t, 3000)
	h.complete(run, raw)
	d := h.deliver(run)
	require.Equal(t, comfy.Delivered, d.Outcome, "%+v", d)
	require.NoError(t, verifier.Verify(r.raw, r.header))
	in := webhookOf(run)
	require.Equal(t, in.MessageID(), r.header.Get("webhook-id"))
	require.Equal(t, "job.completed", r.body["type"])
	require.Equal(t, run.info.CloseTime.AsTime().Format(time.RFC3339Nano), r.body["timestamp"])
	data := r.body["data"].(map[string]any)
	link := data["output"].(map[string]any)["images"].([]any)[0].(map[string]any)["url"].(string)
	require.Equal(t, raw, h.do("GET", link, "", "Authorization", "").raw)
	require.True(t, strings.HasPrefix(link, "http://"+h.addr+"/"), "the address that the client used: %s", link)
	status := h.do("GET", "/status/"+id+"?output=url", "").body
	for _, s := range []map[string]any{data, status} { // links expire, each at its time
		delete(s["output"].(map[string]any)["images"].([]any)[0].(map[string]any), "url")
		delete(s["output"].(map[string]any)["images"].([]any)[0].(map[string]any), "url_expires_at")
	}
	require.Equal(t, status, data)

	for kind, end := range map[string]func(*fakeRun){
		"job.failed": func(run *fakeRun) {
			run.failure = endError(t, temporal.NewNonRetryableApplicationError("a node broke", "node_failed", nil, comfy.Failure{NodeID: "2"}))
			h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_FAILED)
		},
		"job.canceled": func(run *fakeRun) {
			run.failure = endError(t, temporal.NewCanceledError(comfy.Failure{Code: comfy.Canceled}))
			h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_CANCELED)
		},
	} {
		id, run := h.withWebhook(r.URL)
		end(run)
		require.Equal(t, comfy.Delivered, h.deliver(run).Outcome)
		require.NoError(t, verifier.Verify(r.raw, r.header))
		require.Equal(t, kind, r.body["type"])
		require.Equal(t, h.do("GET", "/status/"+id, "").body, r.body["data"])
	}
	require.NotContains(t, h.log.String(), secret)
}

// TestWebhookLinksLeadSomewhere: to the public URL, or where the client was, or they are not sent.
func TestWebhookLinksLeadSomewhere(t *testing.T) {
	r := newReceiver(t)
	link := func() string {
		return r.body["data"].(map[string]any)["output"].(map[string]any)["images"].([]any)[0].(map[string]any)["url"].(string)
	}
	public := newHarness(t, func(o *Options) { o.PublicURL = "https://comfy.example.com/" })
	_, run := public.withWebhook(r.URL)
	public.complete(run, []byte("x"))
	require.Equal(t, comfy.Delivered, public.deliver(run).Outcome)
	require.True(t, strings.HasPrefix(link(), "https://comfy.example.com/outputs/"), link())

	h := newHarness(t)
	child := newRun("a-child", comfy.WorkflowName)
	child.request.WebhookURL = r.URL
	h.temporal.set("a-child", child)
	h.complete(child, []byte("x"))
	d := h.deliver(child)
	require.Equal(t, comfy.DeliveryRefused, d.Outcome)
	require.Contains(t, d.Error, "COMFYD_PUBLIC_URL")
	require.EqualValues(t, 1, r.calls.Load())
}

// TestWebhookOfTheTenant is told where a job names nobody; the setting is no part of what makes two requests the same.
func TestWebhookOfTheTenant(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.DefaultWebhooks = map[string]string{"a": "http://127.0.0.1:9/default"} })
	body := `{"workflow":` + graphJSON + `}`
	a := h.submit(body, "Idempotency-Key", "k")
	run, err := h.temporal.get(a.body["id"].(string))
	require.NoError(t, err)
	require.Equal(t, "http://127.0.0.1:9/default", run.request.WebhookURL)
	_, own := h.withWebhook("http://127.0.0.1:9/own")
	require.Equal(t, "http://127.0.0.1:9/own", own.request.WebhookURL)
	other := h.submit(body, "Authorization", "Bearer "+keyB)
	run, err = h.temporal.get(other.body["id"].(string))
	require.NoError(t, err)
	require.Empty(t, run.request.WebhookURL)

	h.requireError(h.do("POST", "/batch", `{"workflow":`+graphJSON+`,"variations":[{}],"webhook_url":"https://10.0.0.1/"}`), 422, CodeInvalidWebhook)
	for _, url := range []string{"", "http://127.0.0.1:9/own"} {
		batch := h.do("POST", "/batch", `{"workflow":`+graphJSON+`,"variations":[{},{}],"webhook_url":"`+url+`"}`)
		require.Equal(t, 202, batch.status, "%s", batch.raw)
		for _, one := range batch.body["jobs"].([]any) {
			run, err := h.temporal.get(one.(map[string]any)["id"].(string))
			require.NoError(t, err)
			require.Equal(t, map[bool]string{true: "http://127.0.0.1:9/default", false: url}[url == ""], run.request.WebhookURL)
		}
	}

	h.server.opts.DefaultWebhooks = nil
	again := h.submit(body, "Idempotency-Key", "k")
	require.Equal(t, "true", again.header.Get("Idempotent-Replayed"), "%s", again.raw)
	h.requireError(h.submit(`{"workflow":`+graphJSON+`,"webhook_url":"http://127.0.0.1:9/own"}`, "Idempotency-Key", "k"), 422, CodeIdempotencyKeyReuse)

	_, err = New(Options{
		Temporal: h.temporal, Store: h.store, Catalogs: h.catalogs, Log: h.server.log, Webhooks: h.server.opts.Webhooks, Keys: h.server.opts.Keys,
		SigningKey: h.server.opts.SigningKey, DefaultWebhooks: map[string]string{"a": "https://10.0.0.1/"},
	})
	require.ErrorContains(t, err, "the webhook of tenant \"a\"")
}

// TestWebhookGone: a receiver that wants no more is left alone, also by other jobs, until a replay reaches it.
func TestWebhookGone(t *testing.T) {
	h, r := newHarness(t), newReceiver(t)
	r.answer.Store(410)
	_, run := h.withWebhook(r.URL)
	h.complete(run, []byte("x"))
	require.Equal(t, comfy.DeliveryGone, h.deliver(run).Outcome)
	r.answer.Store(200)
	_, next := h.withWebhook(r.URL)
	h.complete(next, []byte("x"))
	d := h.deliver(next)
	require.Equal(t, comfy.DeliveryGone, d.Outcome)
	require.Contains(t, d.Error, "410")
	require.EqualValues(t, 1, r.calls.Load())
	_, elsewhere := h.withWebhook(r.URL + "/elsewhere")
	h.complete(elsewhere, []byte("x"))
	require.Equal(t, comfy.Delivered, h.deliver(elsewhere).Outcome)
	_, others := h.withWebhook(r.URL, "Authorization", "Bearer "+keyB)
	h.complete(others, []byte("x"))
	require.Equal(t, comfy.Delivered, h.deliver(others).Outcome, "another tenant's")

	replay := webhookOf(next)
	replay.Replay = true
	d, err := h.server.Deliver(t.Context(), replay)
	require.NoError(t, err)
	require.Equal(t, comfy.Delivered, d.Outcome)
	require.True(t, d.Replay)
	require.Equal(t, comfy.Delivered, h.deliver(run).Outcome, "it is as before")

	r.answer.Store(410)
	h.deliver(run)
	h.setClock(time.Now().Add(comfy.WebhookNotesLast + time.Hour))
	r.answer.Store(200)
	run.info.CloseTime = timestamppb.New(h.server.now())
	require.Equal(t, comfy.Delivered, h.deliver(run).Outcome, "it is asked again after a week")
}

// TestWebhookOfAForgottenJob has nothing to tell.
func TestWebhookOfAForgottenJob(t *testing.T) {
	h, r := newHarness(t), newReceiver(t)
	id, run := h.withWebhook(r.URL)
	h.complete(run, []byte("x"))
	h.temporal.lingers = true
	require.Equal(t, 204, h.do("DELETE", "/jobs/"+id, "").status)
	require.Equal(t, comfy.DeliveryForgotten, h.deliver(run).Outcome)
	h.temporal.set(id, nil)
	h.server.deleted.Purge()
	require.Equal(t, comfy.DeliveryForgotten, h.deliver(run).Outcome)
	require.Zero(t, r.calls.Load())

	_, run = h.withWebhook(r.URL)
	h.complete(run, []byte("x"))
	h.temporal.fail(serviceerror.NewUnavailable("not now"))
	_, err := h.server.Deliver(t.Context(), webhookOf(run))
	require.Error(t, err, "an outage is no reason to forget it")
}

// historyOf is what Temporal keeps of a webhook's workflow.
func historyOf(t *testing.T, in comfy.Webhook, open bool, pause time.Duration, attempts ...comfy.Delivery) []*historypb.HistoryEvent {
	t.Helper()
	payloads := func(v any) *commonpb.Payloads {
		p, err := converter.GetDefaultDataConverter().ToPayloads(v)
		require.NoError(t, err)
		return p
	}
	events := []*historypb.HistoryEvent{{Attributes: &historypb.HistoryEvent_WorkflowExecutionStartedEventAttributes{
		WorkflowExecutionStartedEventAttributes: &historypb.WorkflowExecutionStartedEventAttributes{Input: payloads(in)},
	}}}
	for i, d := range attempts {
		if i > 0 {
			events = append(events, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_TimerFiredEventAttributes{TimerFiredEventAttributes: &historypb.TimerFiredEventAttributes{}}})
		}
		events = append(events, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_ActivityTaskCompletedEventAttributes{
			ActivityTaskCompletedEventAttributes: &historypb.ActivityTaskCompletedEventAttributes{Result: payloads(d)},
		}}, &historypb.HistoryEvent{EventTime: timestamppb.New(d.At), Attributes: &historypb.HistoryEvent_TimerStartedEventAttributes{
			TimerStartedEventAttributes: &historypb.TimerStartedEventAttributes{StartToFireTimeout: durationpb.New(pause)},
		}})
	}
	if !open {
		events = append(events, &historypb.HistoryEvent{Attributes: &historypb.HistoryEvent_WorkflowExecutionCompletedEventAttributes{
			WorkflowExecutionCompletedEventAttributes: &historypb.WorkflowExecutionCompletedEventAttributes{},
		}})
	}
	return events
}

// TestWebhookLog reads what is known of the attempts without a worker.
func TestWebhookLog(t *testing.T) {
	h, r := newHarness(t), newReceiver(t)
	plain, _ := h.submitted()
	h.requireError(h.do("GET", "/jobs/"+plain+"/webhook", ""), 404, CodeNotFound)
	id, run := h.withWebhook(r.URL)
	path := "/jobs/" + id + "/webhook"
	h.requireError(h.do("GET", path, "", "Authorization", "Bearer "+keyB), 404, CodeNotFound)
	h.requireError(h.do("POST", path+"/replay", "", "Authorization", "Bearer "+keyB), 404, CodeNotFound)
	log := h.do("GET", path, "")
	require.Equal(t, 200, log.status, "%s", log.raw)
	in := webhookOf(run)
	require.Equal(t, map[string]any{"id": id, "state": "waiting", "message_id": in.MessageID(), "url": r.URL, "attempts": []any{}}, log.body)
	h.requireError(h.do("POST", path+"/replay", ""), 400, CodeInvalidRequest)
	h.complete(run, []byte("x"))
	require.Equal(t, "unsent", h.do("GET", path, "").body["state"])

	deliveries := newRun(comfy.WebhookWorkflowID(id), comfy.WebhookWorkflowName)
	h.temporal.set(comfy.WebhookWorkflowID(id), deliveries)
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	first := comfy.Delivery{At: at, Outcome: comfy.DeliveryFailed, HTTPStatus: 500, DurationMS: 7, Error: "HTTP 500", Answer: "oh no"}
	deliveries.events = historyOf(t, in, true, 5*time.Second, first)
	log = h.do("GET", path, "")
	require.Equal(t, "pending", log.body["state"])
	require.Equal(t, "2026-11-30T12:00:05Z", log.body["next_attempt_at"])
	require.Equal(t, map[string]any{"at": "2026-11-30T12:00:00Z", "outcome": "failed", "http_status": 500.0, "duration_ms": 7.0, "error": "HTTP 500", "answer": "oh no"},
		log.body["attempts"].([]any)[0])

	// A replay remembers what was before it.
	again := h.do("POST", path+"/replay", "")
	require.Equal(t, 202, again.status, "%s", again.raw)
	require.Equal(t, "pending", again.body["state"])
	replayed, err := h.temporal.get(comfy.WebhookWorkflowID(id))
	require.NoError(t, err)
	require.Equal(t, comfy.Webhook{JobID: id, RunID: in.RunID, URL: r.URL, Replay: true, Earlier: []comfy.Delivery{first}}, replayed.webhook)
	require.Equal(t, enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING, replayed.options.WorkflowIDConflictPolicy)
	require.Equal(t, in.MessageID(), replayed.webhook.MessageID(), "receivers can tell that they have had it")
	replayed.events = historyOf(t, replayed.webhook, false, 0, comfy.Delivery{Outcome: comfy.Delivered, HTTPStatus: 200, Replay: true})
	log = h.do("GET", path, "")
	require.Equal(t, "delivered", log.body["state"])
	require.NotContains(t, log.body, "next_attempt_at")
	require.Len(t, log.body["attempts"], 2)

	other := in
	other.RunID = "a run before"
	replayed.events = historyOf(t, other, false, 0, comfy.Delivery{Outcome: comfy.Delivered})
	log = h.do("GET", path, "")
	require.Equal(t, "unsent", log.body["state"], "it was another job's under the same ID")
	require.Empty(t, log.body["attempts"])

	require.Equal(t, 204, h.do("DELETE", "/jobs/"+id, "").status)
	_, err = h.temporal.get(comfy.WebhookWorkflowID(id))
	require.Error(t, err, "the log goes with its job")
	h.requireError(h.do("GET", path, ""), 404, CodeNotFound)
}
