package faults

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestF26PrivateReceivers: addresses of this network are refused at submission where they show, and when they are dialled
// where a name hides them. Nothing is connected to.
func TestF26PrivateReceivers(t *testing.T) {
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var reached atomic.Int64
	trap := &httptest.Server{Listener: l, Config: &http.Server{
		Handler:   http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		ConnState: func(net.Conn, http.ConnState) { reached.Add(1) },
	}}
	trap.StartTLS()
	defer trap.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	for _, url := range []string{
		"https://127.0.0.1:" + port, "https://[::1]:" + port, "https://[::ffff:127.0.0.1]:" + port, "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data/",
		"http://localhost:" + port, "file:///etc/passwd", "https://me:secret@example.com/",
	} {
		e := w.send(job{graph: noise(500), more: map[string]any{"webhook_url": url}})
		require.Equal(t, http.StatusUnprocessableEntity, e.Code, url)
		require.Equal(t, "invalid_webhook", e.Body["code"], url)
	}
	named := w.withHook(501, "https://localhost:"+port+"/hook")
	w.completes(named, 1)
	log := w.webhookIs(named, "refused")
	require.Len(t, log["attempts"], 1)
	w.fired(true, "8 addresses were refused at submission, and a name when it was dialled")
	for n, host := range []string{"2130706433", "0177.0.0.1", "0x7f000001", "127.1"} {
		id := w.withHook(502+n, "https://"+host+":"+port+"/hook")
		w.completes(id, 1)
		require.Eventually(t, func() bool {
			attempts, _ := w.alice.Do(t.Context(), "GET", "/jobs/"+id+"/webhook", "", nil, nil).Body["attempts"].([]any)
			return len(attempts) > 0 && attempts[0].(map[string]any)["outcome"] != "delivered"
		}, 5*time.Minute, 50*time.Millisecond, host)
	}
	require.Zero(t, reached.Load(), "something was connected to")
	w.check()
}
