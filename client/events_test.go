package client_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/internal/fakeapi"
)

// stream answers with events, given as they stand on the wire, and then breaks off.
func stream(events ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, e := range events {
			fmt.Fprint(w, e, "\n\n")
		}
	}
}

// TestEvents: a stream that breaks off is gone on with, from where it was, and kinds that are not known are passed over.
func TestEvents(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Key = "secret"
	s.Next("GET /events/job-1",
		fakeapi.Answer(503, `{"error":"not now"}`),
		stream("retry: 1000", ": keep-alive", "event: status\nid: a-0\ndata: "+running,
			"event: preview\nid: a-0\ndata: {\"node_id\":\"3\",\"content_type\":\"image/jpeg\",\"data\":\"/9j/\"}",
			"event: output\nid: a-1\ndata: {\"filename\":\"a.png\",\"type\":\"url\",\"list\":\"images\"}", "event: half\nda"),
		stream("event: fresh\nid: a-1\ndata: x", "event: output\nid: a-2\ndata: {\"node_id\":\"4\",\"text\":\"b\",\"list\":\"texts\"}",
			"event: done\nid: a-2\ndata: "+completed))
	var kinds []client.EventKind
	for e, err := range client.New(s.URL, "secret").Events(t.Context(), fakeapi.ID) {
		require.NoError(t, err)
		kinds = append(kinds, e.Kind)
		switch len(kinds) {
		case 1:
			require.Equal(t, 0.5, e.Status.Progress.Value)
		case 2:
			require.Equal(t, &client.Preview{NodeID: "3", ContentType: "image/jpeg", Data: []byte{0xff, 0xd8, 0xff}}, e.Preview)
		case 3:
			require.Equal(t, "a.png", e.Output.Filename)
			require.Equal(t, "images", e.List)
		case 4:
			require.Equal(t, "b", e.Text.Text)
		case 5:
			require.True(t, e.Status.Ended())
		}
	}
	require.Equal(t, []client.EventKind{"status", "preview", "output", "output", "done"}, kinds)
	calls := s.Calls("GET /events/job-1")
	require.Len(t, calls, 3)
	require.Empty(t, calls[1].Header.Get("Last-Event-ID"))
	require.Equal(t, "a-1", calls[2].Header.Get("Last-Event-ID"))
}

// TestEventsEnd: by a refusal, by who reads them, and with the context.
func TestEventsEnd(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	c := client.New(s.URL, "")
	s.Next("GET /events/job-1", fakeapi.Answer(404, `{"error":"none","code":"not_found"}`))
	for _, err := range c.Events(t.Context(), fakeapi.ID) {
		var refused *client.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, 404, refused.HTTPStatus)
	}
	one := stream("event: status\nid: a-0\ndata: " + running)
	s.Next("GET /events/job-1", one)
	for _, err := range c.Events(t.Context(), fakeapi.ID) {
		require.NoError(t, err)
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.Next("GET /events/job-1", one)
	var last error
	for _, err := range c.Events(ctx, fakeapi.ID) {
		cancel()
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
	require.Len(t, s.Calls("GET /events/job-1"), 3)
}
