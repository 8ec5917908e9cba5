package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakeapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	running   = `{"id":"job-1","status":"RUNNING","phase":"running","progress":{"value":0.5,"nodes_done":1,"nodes_total":2,"current_node":"3"}}`
	completed = `{"id":"job-1","status":"COMPLETED","output":{"images":[]}}`
)

func TestSubmit(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Key = "secret"
	j, err := client.New(s.URL+"/", "secret").Submit(t.Context(), client.SubmitRequest{
		Workflow: json.RawMessage(`{"1":{"class_type":"K<>","inputs":{"seed":18446744073709551615,"cfg":1.50}}}`),
		Images:   []client.InputFile{{Name: "a.png", Ref: "inputs/abc"}},
		Metadata: map[string]string{"shot": "7"}, TimeoutSeconds: 60, Priority: 1, Backend: "local", StripMetadata: true,
		ExtraPNGInfo: json.RawMessage(`{"workflow":{}}`), IdempotencyKey: "k1",
	})
	require.NoError(t, err)
	require.Equal(t, client.Job{ID: fakeapi.ID, State: comfy.Running, StatusURL: s.URL + "/status/job-1"}, j)
	call := s.Calls("POST /submit_workflow")[0]
	require.Equal(t, "k1", call.Header.Get("Idempotency-Key"))
	require.Equal(t, "application/json", call.Header.Get("Content-Type"))
	require.Equal(t, `{"workflow":{"1":{"class_type":"K<>","inputs":{"seed":18446744073709551615,"cfg":1.50}}},`+
		`"images":[{"name":"a.png","ref":"inputs/abc"}],"metadata":{"shot":"7"},"timeout_seconds":60,"priority":1,"backend":"local",`+
		`"extra_pnginfo":{"workflow":{}},"strip_metadata":true}`+"\n", string(call.Body))
}

func TestSubmitAgainIsTheSameJob(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Next("POST /submit_workflow", fakeapi.Break, fakeapi.Answer(503, `{"error":"not now"}`),
		fakeapi.Answer(202, `{"id":"job-1","status":"RUNNING"}`, "Idempotent-Replayed: true"))
	var notices atomic.Int32
	c := client.New(s.URL, "", client.WithNotice(func(error, time.Duration) { notices.Add(1) }))
	j, err := c.Submit(t.Context(), client.SubmitRequest{Workflow: json.RawMessage(`{}`)})
	require.NoError(t, err)
	require.True(t, j.Replayed)
	calls := s.Calls("POST /submit_workflow")
	require.GreaterOrEqual(t, len(calls), 3)
	require.NotEmpty(t, calls[0].Header.Get("Idempotency-Key"))
	for _, c := range calls {
		require.Equal(t, calls[0].Header.Get("Idempotency-Key"), c.Header.Get("Idempotency-Key"))
		require.Equal(t, `{"workflow":{}}`+"\n", string(c.Body))
	}
	require.EqualValues(t, 2, notices.Load())

	_, err = c.Submit(t.Context(), client.SubmitRequest{Workflow: json.RawMessage(`{}`)})
	require.NoError(t, err)
	again := s.Calls("POST /submit_workflow")
	require.NotEqual(t, calls[0].Header.Get("Idempotency-Key"), again[len(again)-1].Header.Get("Idempotency-Key"))

	_, err = c.Submit(t.Context(), client.SubmitRequest{Workflow: json.RawMessage(`{"a":NaN}`)})
	require.ErrorContains(t, err, "not JSON")
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   client.Error
	}{
		"node errors": {
			fakeapi.Answer(400, `{"error":"bad graph","code":"invalid_workflow","node_errors":{"4":{"class_type":"SaveImage","errors":[{"type":"t","message":"m","details":"d"}]}}}`, "X-Request-Id: r1"),
			client.Error{HTTPStatus: 400, Code: "invalid_workflow", Message: "bad graph", RequestID: "r1", NodeErrors: comfy.NodeErrors{
				"4": {ClassType: "SaveImage", Errors: []comfy.InputError{{Type: "t", Message: "m", Details: "d"}}},
			}},
		},
		"limit": {
			fakeapi.Answer(429, `{"error":"too many","code":"rate"}`, "Retry-After: 3600"),
			client.Error{HTTPStatus: 429, Code: "rate", Message: "too many", RetryAfter: time.Hour},
		},
		"a proxy's page": {
			fakeapi.Answer(403, `<html>`, "Content-Type: text/html"),
			client.Error{HTTPStatus: 403, Message: "the server answered 403 Forbidden"},
		},
		"a proxy's text": {
			fakeapi.Answer(418, "short and stout\n", "Content-Type: text/plain"),
			client.Error{HTTPStatus: 418, Message: "the server answered 418 I'm a teapot: short and stout"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeapi.New(t)
			s.Next("GET /status/job-1", test.answer)
			_, err := client.New(s.URL, "").Status(t.Context(), "job-1", client.StatusOptions{})
			var refused *client.Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, test.want, *refused)
			require.Len(t, s.Calls("GET /status"), 1)
		})
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Statuses(running, `{"id":"job-1","status":"FAILED","error":"boom","code":"node_failed","node_id":"3","attempts":2,"metrics":{"total_ms":5}}`)
	c := client.New(s.URL, "")
	st, err := c.Status(t.Context(), "job-1", client.StatusOptions{Wait: 1500 * time.Millisecond, OutputURL: true})
	require.NoError(t, err)
	require.Equal(t, &comfy.Progress{Value: 0.5, NodesDone: 1, NodesTotal: 2, CurrentNode: "3"}, st.Progress)
	require.False(t, st.Ended())
	require.NoError(t, st.Err())
	require.Equal(t, "output=url&wait=1", s.Calls("GET /status")[0].Query)

	st, err = c.Status(t.Context(), "job-1", client.StatusOptions{})
	require.NoError(t, err)
	require.True(t, st.Ended())
	require.Equal(t, &comfy.Failure{Code: comfy.NodeFailed, Message: "boom", NodeID: "3", Attempts: 2, Metrics: comfy.Metrics{TotalMS: 5}}, st.Err())
	require.Empty(t, s.Calls("GET /status")[1].Query)

	_, err = c.Status(t.Context(), "a/../b?c#d e", client.StatusOptions{})
	require.ErrorContains(t, err, "Call ID not found or invalid. (HTTP 404)")
	require.Len(t, s.Calls("GET /status/a/../b?c#d e"), 1)
}

func TestNotComfyd(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Next("GET /status", fakeapi.Answer(200, "<html>", "Content-Type: text/html"), fakeapi.Answer(200, `{}`),
		fakeapi.Answer(200, `[1]`))
	c := client.New(s.URL, "")
	for range 3 {
		_, err := c.Status(t.Context(), "job-1", client.StatusOptions{})
		require.ErrorContains(t, err, "at "+s.URL)
	}
	require.Len(t, s.Calls("GET /status"), 3)
	_, err := client.New("127.0.0.1:8080", "").Status(t.Context(), "x", client.StatusOptions{})
	require.ErrorContains(t, err, "http://127.0.0.1:8080")
	began := time.Now()
	_, err = client.New(strings.Replace(s.URL, "http", "https", 1), "", client.WithRetryFor(time.Minute)).Status(t.Context(), "x", client.StatusOptions{})
	require.ErrorIs(t, err, http.ErrSchemeMismatch)
	require.Less(t, time.Since(began), 30*time.Second, "this does not pass")
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Stop()
	began := time.Now()
	_, err := client.New(s.URL, "", client.WithRetryFor(300*time.Millisecond)).Status(t.Context(), "job-1", client.StatusOptions{})
	var unreachable *client.UnreachableError
	require.ErrorAs(t, err, &unreachable)
	require.Equal(t, s.URL, unreachable.URL)
	require.Less(t, time.Since(began), 8*time.Second, "without the option it is ten")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err = client.New(s.URL, "", client.WithNotice(func(error, time.Duration) { cancel() })).Wait(ctx, "job-1", nil)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorAs(t, err, &unreachable, "the reason for the waiting is told")
}

// A server that takes the request and then says nothing, as one behind a dead link does.
func TestSilence(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Next("GET /status", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s.Statuses(completed)
	st, err := client.New(s.URL, "", client.WithSilence(time.Second)).Status(t.Context(), "job-1", client.StatusOptions{})
	require.NoError(t, err)
	require.True(t, st.Ended())
	require.GreaterOrEqual(t, len(s.Calls("GET /status")), 2)

	// A slow one is not silent, though it takes longer than the silence in all.
	s.Next("GET /outputs", func(w http.ResponseWriter, _ *http.Request) {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for range 7 {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
			<-tick.C
		}
	})
	var got bytes.Buffer
	require.NoError(t, client.New(s.URL, "", client.WithSilence(5*time.Second)).Download(t.Context(),
		client.Output{Type: client.TypeURL, URL: s.URL + "/outputs/x"}, &got))
	require.Equal(t, "xxxxxxx", got.String())
}

func TestWaitSurvivesRestart(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Statuses(running)
	s.Next("GET /status", fakeapi.Answer(202, running), fakeapi.Answer(503, `{"error":"starting"}`, "Retry-After: 1"),
		fakeapi.Answer(429, `{"error":"slow down"}`, "Retry-After: 1"), fakeapi.Break)
	var reports, refused atomic.Int32
	c := client.New(s.URL, "", client.WithRetryFor(0), client.WithNotice(func(err error, next time.Duration) {
		var u *client.UnreachableError
		if errors.As(err, &u) && strings.Contains(err.Error(), "refused") && refused.Add(1) == 2 {
			s.Statuses(completed)
			s.Start()
		}
	}))
	st, err := c.Wait(t.Context(), "job-1", func(client.Status) {
		if reports.Add(1) == 2 {
			s.Stop()
		}
	})
	require.NoError(t, err)
	require.Equal(t, comfy.Completed, st.State)
	require.EqualValues(t, 2, refused.Load())
	require.EqualValues(t, 3, reports.Load())
	require.Equal(t, "output=url&wait=1", s.Calls("GET /status")[0].Query)
}

func TestWaitEnds(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Next("GET /status", fakeapi.Answer(404, `{"error":"Call ID not found or invalid."}`))
	_, err := client.New(s.URL, "").Wait(t.Context(), "job-1", nil)
	require.ErrorContains(t, err, "Call ID not found")
	require.Equal(t, "output=url&wait=30", s.Calls("GET /status")[0].Query)

	s.Statuses(running)
	ctx, cancel := context.WithCancel(t.Context())
	_, err = client.New(s.URL, "").Wait(ctx, "job-1", func(client.Status) { cancel() })
	require.ErrorIs(t, err, context.Canceled)

	// This server holds no answer back, and is not flooded for that.
	calls := len(s.Calls("GET /status"))
	ctx, cancel = context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	_, err = client.New(s.URL, "").Wait(ctx, "job-1", nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.LessOrEqual(t, len(s.Calls("GET /status"))-calls, 2)
}

func TestCancel(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	st, err := client.New(s.URL, "").Cancel(t.Context(), "job-1")
	require.NoError(t, err)
	require.Equal(t, comfy.PhaseCanceling, st.Phase)
}

func TestUpload(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("pixels"), 100_000)
	for name, test := range map[string]struct {
		reader io.Reader
		tries  int
	}{
		"a file":   {bytes.NewReader(data), 2},
		"a stream": {io.MultiReader(bytes.NewReader(data)), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeapi.New(t)
			s.Next("POST /inputs", fakeapi.Answer(503, `{"error":"not now"}`))
			c := client.New(s.URL, "")
			in, err := c.Upload(t.Context(), "sub/ä \".png", test.reader)
			calls := s.Calls("POST /inputs")
			require.Len(t, calls, test.tries)
			if test.tries == 1 {
				require.ErrorContains(t, err, "cannot upload sub/ä \".png: not now")
			} else {
				require.NoError(t, err)
				require.Equal(t, client.InputFile{Name: "sub/ä \".png", Ref: "inputs/abc"}, in)
			}
			for _, call := range calls {
				_, params, err := mime.ParseMediaType(call.Header.Get("Content-Type"))
				require.NoError(t, err)
				part, err := multipart.NewReader(bytes.NewReader(call.Body), params["boundary"]).NextPart()
				require.NoError(t, err)
				require.Equal(t, "ä \".png", part.FileName())
				got, err := io.ReadAll(part)
				require.NoError(t, err)
				require.Equal(t, data, got)
			}
		})
	}
}

// The key goes to the API only, never to a store behind a link.
func TestKeyStaysHome(t *testing.T) {
	t.Parallel()
	var header atomic.Value
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header.Store(r.Header.Get("Authorization"))
	}))
	t.Cleanup(other.Close)
	s := fakeapi.New(t)
	s.Key = "secret"
	c := client.New(s.URL, "secret")
	require.NoError(t, c.Download(t.Context(), client.Output{Type: client.TypeURL, URL: other.URL}, io.Discard))
	require.Empty(t, header.Load())
	s.Next("GET /outputs", fakeapi.Answer(200, ""))
	require.NoError(t, c.Download(t.Context(), client.Output{Type: client.TypeURL, URL: "/outputs/x"}, io.Discard))
	require.Equal(t, "Bearer secret", s.Calls("GET /outputs")[0].Header.Get("Authorization"))
}
