package faults

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tmaxmax/go-sse"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestF02APIKilledWithListeners kills the API while clients listen to a job, and others hold for its end. The clients
// connect again by themselves, hear of the job's end, and of each output once.
func TestF02APIKilledWithListeners(t *testing.T) {
	w, d := newWorld(t), newDoor(t)
	w.gpu = d
	w.temporald()
	api, worker := w.pair(w.temporal, d.URL)
	worker("worker-1", w.temporal)
	id := w.submit(slowOf(t, 3072))
	w.running(id)

	const listeners = 5
	var up, over sync.WaitGroup
	up.Add(listeners)
	ends := make(chan *client.Status, listeners)
	listen := client.New(api.url, aliceSecret)
	for range listeners {
		over.Go(func() {
			first, outputs := true, 0
			for e, err := range listen.Events(t.Context(), id) {
				if err != nil {
					t.Errorf("a client gives up: %v", err)
					break
				}
				if e.Kind == client.EventOutput {
					outputs++
				}
				if e.Kind == client.EventDone {
					if outputs != len(e.Status.Output.Images) {
						t.Errorf("%d outputs were told of %d", outputs, len(e.Status.Output.Images))
					}
					ends <- e.Status
				}
				if first {
					first = false
					up.Done()
				}
			}
		})
	}
	held := make(chan *Event, 1)
	go func() { held <- w.alice.Do(t.Context(), "GET", "/status/"+id+"?wait=60", id, nil, nil) }()
	up.Wait()
	require.Equal(t, "RUNNING", w.status(id).State())
	api.kill()
	require.Zero(t, (<-held).Code, "a poll that waits is cut off")
	w.fired(true, fmt.Sprintf("kill -9 of the API with %d event streams and a poll that waits", listeners))
	api.start()
	again := time.Now()
	whole := w.completes(id, 1)
	over.Wait()
	close(ends)
	t.Logf("the job's end came to all who listen %s after the API was back", time.Since(again))
	heard := 0
	for st := range ends {
		heard++
		require.Len(t, st.Output.Images, len(whole["output"].(map[string]any)["images"].([]any)))
		require.Equal(t, whole["output"].(map[string]any)["images"].([]any)[0].(map[string]any)["sha256"], st.Output.Images[0].SHA256)
	}
	require.Equal(t, listeners, heard)

	// By the last ID, another replica's or process's, too: nothing twice, and the end again.
	last := ""
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), "GET", api.url+"/events/"+id, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+aliceSecret)
		req.Header.Set("Last-Event-ID", last)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		var kinds []string
		for e, err := range sse.Read(res.Body, &sse.ReadConfig{MaxEventSize: 1 << 20}) {
			require.NoError(t, err)
			kinds, last = append(kinds, e.Type), e.LastEventID
		}
		require.NoError(t, res.Body.Close())
		if len(kinds) == 1 {
			require.Equal(t, []string{"done"}, kinds)
			break
		}
		require.Equal(t, []string{"output", "done"}, kinds)
		api.kill()
		api.start()
	}
	w.check()
}

// TestF24EventsThatNobodyReads opens event streams that nobody reads: they are dropped, and one that is read goes on.
func TestF24EventsThatNobodyReads(t *testing.T) {
	const unread = 50
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	s.Previews(true)
	s.PreviewSize(256)
	s.Step(60 * time.Millisecond)
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL)
	id := w.submit(`{"1":{"class_type":"EmptyChromaRadianceLatentImage","inputs":{"width":4096,"height":4096,"batch_size":1}},
		"2":{"class_type":"VAELoader","inputs":{"vae_name":"pixel_space"}},
		"3":{"class_type":"VAEDecodeTiled","inputs":{"samples":["1",0],"vae":["2",0],"tile_size":64,"overlap":0,"temporal_size":64,"temporal_overlap":4}},
		"4":{"class_type":"SaveImage","inputs":{"images":["3",0],"filename_prefix":"long"},"_meta":{"title":"@MARK@"}}}`)
	w.running(id)
	began := time.Now()
	gone := make(chan time.Duration, unread)
	for range unread {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.(*net.TCPConn).SetReadBuffer(4<<10))
		require.True(t, writes(c, "GET /events/"+id+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+aliceSecret+"\r\n\r\n"))
		go func() {
			for time.Since(began) < 4*time.Minute {
				<-time.After(time.Second)
				if reset(c) {
					break
				}
			}
			gone <- time.Since(began)
		}()
	}
	previews, longest, left := 0, time.Duration(0), unread
	for e, err := range client.New(p.url, aliceSecret).Events(t.Context(), id) {
		require.NoError(t, err)
		if e.Kind == client.EventPreview {
			previews++
		}
		for len(gone) > 0 {
			longest = max(longest, <-gone)
			left--
		}
		if left == 0 && previews > 20 {
			break
		}
		require.NotEqual(t, client.EventDone, e.Kind, "%d streams are left after %s", left, time.Since(began))
	}
	w.fired(true, fmt.Sprintf("%d event streams that nobody reads, all dropped within %.0f s", unread, longest.Seconds()))
	require.Less(t, longest, 200*time.Second)
	t.Logf("meanwhile one that is read had %d previews in %s", previews, time.Since(began))
	require.Equal(t, http.StatusAccepted, w.alice.Do(t.Context(), "POST", "/cancel/"+id, id, json.RawMessage(`{}`), nil).Code)
	w.fails(id, "canceled")
	w.check()
}
