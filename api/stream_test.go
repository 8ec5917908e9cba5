package api

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A store that fails in the middle must not look like a shorter result.
func TestResultBreaksOffVisibly(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.complete(run, randomBytes(t, 1<<20))
	store := &brokenStore{fakeStore: h.store}
	h.server.store = store
	req, err := http.NewRequest("GET", "http://"+h.addr+"/status/"+id, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+keyA)
	for _, store.panics = range []bool{false, true} {
		resp, err := h.client.Do(req)
		require.NoError(t, err)
		_, err = io.ReadAll(resp.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.NoError(t, resp.Body.Close())
	}
	require.Eventually(t, func() bool { return h.store.opened.Load() == 0 }, 30*time.Second, time.Millisecond, "closed all the same")
	require.Contains(t, h.log.String(), io.ErrClosedPipe.Error())
	require.Contains(t, h.log.String(), "disk on fire")
	require.Equal(t, 200, h.do("GET", "/healthz", "").status, "a panic in a stream ends the stream and nothing else")
}
