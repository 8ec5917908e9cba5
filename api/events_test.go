package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tmaxmax/go-sse"
	"go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/live"
)

// streamed is an event stream that is read, by a library that others read such streams with.
type streamed struct {
	t      *testing.T
	resp   *http.Response
	events chan sse.Event // closed at the end
}

// listen opens a job's event stream.
func (h *harness) listen(path string, headers ...string) *streamed {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), "GET", "http://"+h.addr, nil)
	require.NoError(h.t, err)
	req.URL, err = req.URL.Parse(path)
	require.NoError(h.t, err)
	req.Header.Set("Authorization", "Bearer "+keyA)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	patient := *h.client
	patient.Timeout = 2 * time.Minute
	resp, err := patient.Do(req)
	require.NoError(h.t, err)
	require.Equal(h.t, 200, resp.StatusCode)
	require.Equal(h.t, "text/event-stream", resp.Header.Get("Content-Type"))
	s := &streamed{t: h.t, resp: resp, events: make(chan sse.Event, 100)}
	go func() {
		defer close(s.events)
		for e, err := range sse.Read(resp.Body, &sse.ReadConfig{MaxEventSize: 1 << 24}) {
			if err != nil {
				return
			}
			s.events <- e
		}
	}()
	h.t.Cleanup(func() {
		_ = resp.Body.Close()
		for range s.events { // until its reader has ended
			continue
		}
	})
	return s
}

// next is the next event, which must be of a kind, and what it says.
func (s *streamed) next(kind string) (sse.Event, map[string]any) {
	s.t.Helper()
	select {
	case e, ok := <-s.events:
		require.True(s.t, ok, "the stream has ended")
		require.Equal(s.t, kind, e.Type, "%s", e.Data)
		var body map[string]any
		require.NoError(s.t, json.Unmarshal([]byte(e.Data), &body))
		return e, body
	case <-time.After(20 * time.Second):
		require.Fail(s.t, "no event for 20 s", kind)
		return sse.Event{}, nil
	}
}

// until passes over what comes before an event that is as wanted.
func (s *streamed) until(what string, is func(kind string, body map[string]any) bool) {
	s.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case e, ok := <-s.events:
			require.True(s.t, ok, "the stream has ended before: %s", what)
			var body map[string]any
			require.NoError(s.t, json.Unmarshal([]byte(e.Data), &body))
			if is(e.Type, body) {
				return
			}
		case <-limit:
			require.Fail(s.t, "it does not come: "+what)
		}
	}
}

func (s *streamed) ends() {
	s.t.Helper()
	select {
	case e, ok := <-s.events:
		require.False(s.t, ok, "one more event: %s %s", e.Type, e.Data)
	case <-time.After(20 * time.Second):
		require.Fail(s.t, "the stream does not end")
	}
}

// hearing is a harness whose API hears of prompts.
func hearing(t *testing.T, tune func(*Server), change ...func(*Options)) (*harness, *live.Hub) {
	hub := live.NewHub("")
	if tune == nil {
		tune = func(*Server) {}
	}
	return newTunedHarness(t, tune, append(change, func(o *Options) { o.Live = hub })...), hub
}

func progress(value float64) live.News {
	return live.News{Update: &backend.Update{Running: true, Progress: comfy.Progress{Value: value, NodesTotal: 2, CurrentNode: "1", Step: 3, Steps: 20}}}
}

// beats sets the last heartbeat of a job's prompt.
func (h *harness) beats(run *fakeRun, beat *heartbeat) {
	h.change(run, func() {
		run.pending = []*workflowpb.PendingActivityInfo{prompt(h.t, enums.PENDING_ACTIVITY_STATE_STARTED, beat)}
	})
}

// TestEvents follows a job from its queue to its end, by what its worker says, and then once more.
func TestEvents(t *testing.T) {
	h, hub := hearing(t, nil)
	h.setClock(time.Now().Truncate(time.Second)) // links are the same in each answer
	id, run := h.submitted()
	h.beats(run, &heartbeat{Handle: &backend.Handle{Pool: "url", Submission: 1}})
	s := h.listen("/events/" + id)
	require.Equal(t, "no-store, no-transform", s.resp.Header.Get("Cache-Control"))
	first, body := s.next("status")
	require.Equal(t, h.do("GET", "/status/"+id, "").body, body)
	require.Equal(t, "queued", body["phase"])
	require.True(t, strings.HasSuffix(first.LastEventID, "-0"), first.LastEventID)

	source := hub.Begin(id)
	defer source.End()
	source.Publish(progress(0.25))
	_, body = s.next("status")
	require.Equal(t, "running", body["phase"], "though Temporal does not know it yet")
	require.Equal(t, map[string]any{"value": 0.25, "nodes_done": 0.0, "nodes_total": 2.0, "current_node": "1", "step": 3.0, "steps": 20.0}, body["progress"])
	source.Publish(live.News{Preview: &backend.Preview{NodeID: "1", ContentType: "image/jpeg", Data: []byte("a picture")}})
	_, body = s.next("preview")
	require.Equal(t, map[string]any{"node_id": "1", "content_type": "image/jpeg", "data": "YSBwaWN0dXJl"}, body)

	h.complete(run, []byte("first"), []byte("second"))
	var ids []string
	status := h.do("GET", "/status/"+id+"?output=url", "")
	images := status.body["output"].(map[string]any)["images"].([]any)
	ending := func(s *streamed, images []any) {
		t.Helper()
		for _, image := range images {
			e, body := s.next("output")
			require.Equal(t, "images", body["list"])
			delete(body, "list")
			require.Equal(t, image, body)
			ids = append(ids, e.LastEventID)
		}
		e, body := s.next("done")
		require.Equal(t, status.body, body)
		require.True(t, strings.HasSuffix(e.LastEventID, "-2"), e.LastEventID)
		s.ends()
	}
	ending(s, images)
	ending(h.listen("/events/"+id), images)
	ending(h.listen("/events/"+id, headerLastEventID, ids[0]), images[1:])
	ending(h.listen("/events/"+id, headerLastEventID, ids[1]), nil)
	ending(h.listen("/events/"+id, headerLastEventID, "another0-1"), images)
	ending(h.listen("/events/"+id, headerLastEventID, "no such ID"), images)
	require.Eventually(t, func() bool { return h.server.EventStreams() == 0 && len(h.server.feeds.byRun) == 0 }, 30*time.Second, time.Millisecond)
}

// TestEventsOfATextAndAFailure: other lists than images, and the end of a job that made nothing.
func TestEventsOfATextAndAFailure(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	text := h.store.put("outputs/"+id+"/", []byte("long"))
	run.result = comfy.Result{
		Files: []comfy.Output{{Filename: "a.mp4", NodeID: "3", ContentType: "video/mp4", SHA256: strings.Repeat("0", 64)}},
		Texts: []comfy.Text{{NodeID: "4", Text: "short", Size: 5}, {NodeID: "5", Ref: text.Key, Size: 4}},
	}
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	s := h.listen("/events/" + id)
	_, body := s.next("output")
	require.Equal(t, "files", body["list"])
	require.Contains(t, body["url"], "/outputs/"+id+"/000")
	_, body = s.next("output")
	require.Equal(t, map[string]any{"list": "texts", "node_id": "4", "text": "short", "size_bytes": 5.0}, body)
	_, body = s.next("output")
	require.Equal(t, "long", string(h.do("GET", body["url"].(string), "", "Authorization", "").raw))
	s.next("done")
	s.ends()

	id, run = h.submitted()
	s = h.listen("/events/" + id)
	s.next("status")
	run.failure = endError(t, temporal.NewApplicationError("it broke", string(comfy.NodeFailed)))
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_FAILED)
	_, body = s.next("done")
	require.Equal(t, h.do("GET", "/status/"+id, "").body, body)
	require.Equal(t, "node_failed", body["code"])
	s.ends()
}
