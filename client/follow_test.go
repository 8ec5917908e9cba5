package client_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/internal/fakeapi"
)

// TestFollow: by events, by asking where there are none, and by asking where the stream is open and says nothing.
func TestFollow(t *testing.T) {
	t.Parallel()
	silent := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	output := "event: output\nid: a-1\ndata: {\"filename\":\"a.png\",\"type\":\"url\",\"list\":\"images\"}"
	for name, test := range map[string]struct {
		events http.HandlerFunc
		kinds  []client.EventKind
		polls  int
		quiet  time.Duration
	}{
		"events":         {stream("event: status\nid: a-0\ndata: "+running, output, "event: done\nid: a-1\ndata: "+completed), []client.EventKind{"status", "output"}, 0, time.Minute},
		"none":           {fakeapi.Answer(404, `{"error":"none"}`), []client.EventKind{"status"}, 2, time.Minute},
		"another server": {fakeapi.Answer(200, `{}`), []client.EventKind{"status"}, 2, time.Minute},
		"a silent proxy": {silent, []client.EventKind{"status"}, 2, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeapi.New(t)
			s.Next("GET /events/job-1", test.events)
			s.Statuses(running, completed)
			var kinds []client.EventKind
			st, err := client.New(s.URL, "", client.WithQuiet(test.quiet)).Follow(t.Context(), fakeapi.ID, func(e client.Event) { kinds = append(kinds, e.Kind) })
			require.NoError(t, err)
			require.True(t, st.Ended())
			require.Equal(t, test.kinds, kinds)
			require.Len(t, s.Calls("GET /status"), test.polls)
			require.Len(t, s.Calls("GET /events"), 1, "nor does it wait until the stream is given up for dead")
		})
	}
	s := fakeapi.New(t)
	var refused *client.Error
	_, err := client.New(s.URL, "").Follow(t.Context(), "nope", func(client.Event) {})
	require.ErrorAs(t, err, &refused)
	require.Equal(t, 404, refused.HTTPStatus)

	ctx, cancel := context.WithCancel(t.Context())
	s.Next("GET /events/job-1", func(w http.ResponseWriter, r *http.Request) {
		stream("event: status\nid: a-0\ndata: "+running)(w, r)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	_, err = client.New(s.URL, "").Follow(ctx, fakeapi.ID, func(client.Event) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
}
