package live_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/internal/live"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newHub makes a hub that bears with the pauses of a busy machine.
func newHub(base string) *live.Hub {
	h := live.NewHub(base)
	h.CallTimeout(time.Minute)
	return h
}

func update(position int) live.News {
	return live.News{Update: &backend.Update{QueuePosition: &position}}
}

func preview(text string) live.News {
	return live.News{Preview: &backend.Preview{NodeID: "1", ContentType: "image/png", Data: []byte(text)}}
}

// take waits for news.
func take(t *testing.T, l *live.Subscription) live.News {
	t.Helper()
	select {
	case <-l.C:
		return l.Take()
	case <-time.After(time.Minute):
		t.Fatal("no news for a minute")
		return live.News{}
	}
}

// TestNewestOfEachKind: who listens has the newest of each kind, however late it looks, and who publishes never waits.
func TestNewestOfEachKind(t *testing.T) {
	h := newHub("")
	l := h.Subscribe("job")
	defer l.Close()
	require.False(t, h.Publishes("job"))
	s := h.Begin("job")
	require.True(t, h.Publishes("job"))
	require.Empty(t, s.URL())
	for i := range 1000 {
		s.Publish(update(i))
		s.Publish(preview(strings.Repeat("x", i)))
	}
	n := take(t, l)
	require.Equal(t, 999, *n.Update.QueuePosition)
	require.Len(t, n.Preview.Data, 999)
	require.False(t, n.Over)
	require.Equal(t, live.News{}, l.Take(), "once")

	late := h.Subscribe("job")
	defer late.Close()
	n = take(t, late)
	require.Equal(t, 999, *n.Update.QueuePosition)
	require.Nil(t, n.Preview, "a picture is not shown again")

	other := h.Subscribe("another job")
	defer other.Close()
	s.Publish(preview(strings.Repeat("x", 2<<20))) // larger than any of ComfyUI's
	s.End()
	n = take(t, l)
	require.True(t, n.Over)
	require.Nil(t, n.Preview)
	require.Empty(t, other.C)
	require.False(t, h.Publishes("job"))
}

// TestASuccessorCounts: of two who publish about a job it is the one that came last.
func TestASuccessorCounts(t *testing.T) {
	h := newHub("")
	l := h.Subscribe("job")
	defer l.Close()
	first, second := h.Begin("job"), h.Begin("job")
	second.Publish(update(2))
	first.Publish(update(1))
	first.End()
	n := take(t, l)
	require.Equal(t, 2, *n.Update.QueuePosition)
	require.False(t, n.Over)
	second.End()
	require.True(t, take(t, l).Over)
}

// TestNobody: no hub is one that nobody listens to.
func TestNobody(t *testing.T) {
	var h *live.Hub
	s := h.Begin("job")
	s.Publish(update(1))
	require.Empty(t, s.URL())
	s.End()
	l := h.Subscribe("job")
	l.Close()
	require.False(t, h.Publishes("job"))
}

// remote is a hub that others follow.
func remote(t *testing.T) (*live.Hub, *httptest.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h := newHub("http://" + l.Addr().String())
	s := &httptest.Server{Listener: l, Config: h.Server()}
	s.Start()
	t.Cleanup(s.Close)
	return h, s
}

// TestFollow: what a source says in one process is heard in another, to its end.
func TestFollow(t *testing.T) {
	theirs, _ := remote(t)
	ours := newHub("")
	l := ours.Subscribe("job")
	defer l.Close()
	s := theirs.Begin("job")
	s.Publish(update(1))
	followed := make(chan error, 1)
	go func() { followed <- ours.Follow(t.Context(), "job", s.URL()) }()
	require.Equal(t, 1, *take(t, l).Update.QueuePosition, "what was said before")
	s.Publish(preview("a picture"))
	require.Equal(t, "a picture", string(take(t, l).Preview.Data))
	s.End()
	require.True(t, take(t, l).Over)
	require.NoError(t, <-followed)
	require.ErrorContains(t, ours.Follow(t.Context(), "job", s.URL()), "404", "a source that has ended has no address")
}

// TestFollowFails: in time, and with a reason.
func TestFollowFails(t *testing.T) {
	theirs, server := remote(t)
	s := theirs.Begin("job")
	defer s.End()
	ours := newHub("")
	for name, address := range map[string]string{
		"not its token": server.URL + "/live/x", "not its path": server.URL + "/", "no HTTP": "file:///live/x", "no address": "://",
		"nobody there": "http://127.0.0.1:1/live/x",
	} {
		require.Error(t, ours.Follow(t.Context(), "job", address), name)
		require.False(t, ours.Publishes("job"))
	}
	elsewhere := httptest.NewServer(http.RedirectHandler(s.URL(), http.StatusFound))
	defer elsewhere.Close()
	require.ErrorContains(t, ours.Follow(t.Context(), "job", elsewhere.URL+"/live/x"), "302")

	l := ours.Subscribe("job")
	defer l.Close()
	s.Publish(update(1))
	followed := make(chan error, 1)
	follow := func(ctx context.Context) { followed <- ours.Follow(ctx, "job", s.URL()) }
	go follow(t.Context())
	require.NotNil(t, take(t, l).Update)
	server.CloseClientConnections()
	require.ErrorContains(t, <-followed, "ended")
	require.True(t, take(t, l).Over)

	ctx, cancel := context.WithCancel(t.Context())
	go follow(ctx)
	require.NotNil(t, take(t, l).Update)
	cancel()
	require.Error(t, <-followed)
}
