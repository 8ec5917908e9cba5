package app_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/app"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// ticks is a graph that reports n times ten steps on the double, one after the other; each n is another one for its cache.
func ticks(n int) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"1":{"class_type":"EmptyChromaRadianceLatentImage","inputs":{"width":%d,"height":640,"batch_size":1}},
		"2":{"class_type":"VAELoader","inputs":{"vae_name":"pixel_space"}},
		"3":{"class_type":"VAEDecodeTiled","inputs":{"samples":["1",0],"vae":["2",0],"tile_size":64,"overlap":0,"temporal_size":64,"temporal_overlap":4}},
		"4":{"class_type":"SaveImage","inputs":{"images":["3",0],"filename_prefix":"ticks"}}}`, 64*n))
}

// heard is what a client heard of a job.
type heard struct {
	kinds    map[client.EventKind]int
	values   []float64 // of progress
	phases   []comfy.Phase
	outputs  []client.Output
	previews []client.Preview
	end      *client.Status
}

// hear follows a job to its end. Each may be nil.
func (a *api) hear(id string, each func(client.Event)) heard {
	a.t.Helper()
	h := heard{kinds: map[client.EventKind]int{}}
	for e, err := range client.New(a.url, a.key).Events(a.t.Context(), id) {
		require.NoError(a.t, err)
		h.kinds[e.Kind]++
		switch e.Kind {
		case client.EventStatus:
			if !slices.Contains(h.phases, e.Status.Phase) {
				h.phases = append(h.phases, e.Status.Phase)
			}
			if p := e.Status.Progress; p != nil {
				h.values = append(h.values, p.Value)
			}
		case client.EventPreview:
			h.previews = append(h.previews, *e.Preview)
		case client.EventOutput:
			h.outputs = append(h.outputs, *e.Output)
		case client.EventDone:
			h.end = e.Status
		}
		if each != nil {
			each(e)
		}
	}
	return h
}

// requireWhole holds what was heard of a job that completed against its status.
func (a *api) requireWhole(id string, h heard) {
	a.t.Helper()
	require.NotNil(a.t, h.end)
	require.Equal(a.t, comfy.Completed, h.end.State, "%+v", h.end)
	require.Equal(a.t, 1, h.kinds[client.EventDone])
	require.True(a.t, slices.IsSorted(h.values), "progress goes back: %v", h.values)
	var sums []string
	for _, o := range outputs(a.t, a.do("GET", "/status/"+id, nil).body) {
		sums = append(sums, o["sha256"].(string))
	}
	var got []string
	for _, o := range h.outputs {
		got = append(got, o.SHA256)
	}
	require.Equal(a.t, sums, got)
}

// TestEvents: a client hears of a job as it runs, within a moment of what ComfyUI says.
func TestEvents(t *testing.T) {
	d := onDouble(t, nil)
	d.comfy.Previews(true)
	d.comfy.Step(10 * time.Millisecond)
	id := d.submit(map[string]any{"workflow": ticks(60)})
	h := d.hear(id, nil)
	d.requireWhole(id, h)
	require.Contains(t, h.phases, comfy.PhaseRunning)
	require.GreaterOrEqual(t, h.kinds[client.EventStatus], 6, "of three seconds and more, four times a second")
	require.GreaterOrEqual(t, len(h.previews), 4)
	require.Equal(t, "3 image/jpeg", h.previews[0].NodeID+" "+h.previews[0].ContentType)

	gate := d.comfy.Hold("EmptyImage")
	defer gate.Open()
	id = d.submit(map[string]any{"workflow": graph(7, "late")})
	gate.Reached()
	posted := prompts(t, d.comfy)
	var late []time.Duration
	step, said := 0, time.Time{}
	say := func() {
		if step++; step > 20 {
			gate.Open()
			return
		}
		said = time.Now()
		d.comfy.Broadcast("progress", map[string]any{"value": step, "max": 100, "node": "1", "prompt_id": posted[len(posted)-1]})
	}
	timer := time.AfterFunc(time.Hour, say)
	defer timer.Stop()
	h = d.hear(id, func(e client.Event) {
		if e.Kind != client.EventStatus || e.Status.Phase != comfy.PhaseRunning {
			return
		}
		if p := e.Status.Progress; step > 0 && p != nil && p.Step == step {
			late = append(late, time.Since(said))
			timer.Reset(300 * time.Millisecond) // so that the next is not held back for being too soon
		} else if step == 0 {
			timer.Reset(300 * time.Millisecond)
		}
	})
	d.requireWhole(id, h)
	require.Len(t, late, 20)
	slices.Sort(late)
	t.Logf("from ComfyUI's message to the client's event: median %s, longest %s", late[len(late)/2], late[len(late)-1])
	require.Less(t, late[len(late)/2], 250*time.Millisecond)
}

// TestEventsAcrossProcesses: an API without a worker hears of the prompts of others, over the network while their worker
// is there to be followed, and by Temporal when it has gone and another goes on.
func TestEventsAcrossProcesses(t *testing.T) {
	store := "file://" + t.TempDir()
	here, there := fakecomfy.New(t), fakecomfy.New(t)
	a := start(t, map[string]string{"COMFYUI_URLS": here.URL, "COMFYD_SITE": "here", "COMFYD_STORE_URL": store})
	pool := map[string]string{"COMFYUI_URLS": there.URL, "COMFYD_SITE": "there", "COMFYD_EVENTS_LISTEN": "127.0.0.1:0"}
	stop := join(t, a, store, pool)
	replica := startAs(t, app.API, map[string]string{"TEMPORAL_ADDRESS": a.app.TemporalAddress, "COMFYD_STORE_URL": store, "COMFYD_BACKEND": "local"})
	replica.ready()
	there.Previews(true)
	there.Step(20 * time.Millisecond)
	work := map[string]any{"workflow": ticks(1), "backend": "url-there"}
	require.Eventually(t, func() bool { return replica.do("POST", "/submit_workflow", work).code == 202 }, 2*time.Minute, 100*time.Millisecond, "the pool is known")
	work["workflow"] = ticks(60)
	id := replica.submit(work)
	h := replica.hear(id, nil)
	replica.requireWhole(id, h)
	require.GreaterOrEqual(t, h.kinds[client.EventStatus], 6, "%v", h.values)
	require.GreaterOrEqual(t, len(h.previews), 4)

	work["workflow"] = ticks(40)
	id = replica.submit(work)
	delete(pool, "COMFYD_EVENTS_LISTEN")
	h = replica.hear(id, func(e client.Event) {
		if e.Kind == client.EventPreview && stop != nil {
			stop()
			stop = nil
			join(t, a, store, pool)
		}
	})
	replica.requireWhole(id, h)
	require.Nil(t, stop)
	require.EqualValues(t, 1, h.end.Attempts)
}

// TestEventsOfARealComfyUI: its own messages, as they come.
func TestEventsOfARealComfyUI(t *testing.T) {
	a := start(t, map[string]string{"COMFYUI_URLS": comfyURL(t)})
	a.ready()
	id := a.submit(map[string]any{"workflow": slow(t)})
	steps := map[int]bool{}
	h := a.hear(id, func(e client.Event) {
		if e.Kind == client.EventStatus && e.Status.Progress != nil {
			steps[e.Status.Progress.Step] = true
		}
	})
	a.requireWhole(id, h)
	require.Contains(t, h.phases, comfy.PhaseRunning)
	require.Greater(t, len(steps), 3, "%v", h.values)
	t.Logf("%d statuses, of them %d steps of the node that takes long", h.kinds[client.EventStatus], len(steps))
}
