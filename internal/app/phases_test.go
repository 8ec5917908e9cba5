package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/internal/fakecomfy"
	"github.com/comfyd/comfyd/store"
	"github.com/comfyd/comfyd/workflows"
)

// double is comfyd on a scriptable ComfyUI, with its store at hand.
type double struct {
	*api
	comfy *fakecomfy.Server
	blobs string
}

func onDouble(t *testing.T, vars map[string]string) *double {
	t.Helper()
	return onServer(t, fakecomfy.New(t), vars)
}

func onServer(t *testing.T, s *fakecomfy.Server, vars map[string]string) *double {
	t.Helper()
	d := &double{comfy: s}
	dir := t.TempDir()
	d.blobs = filepath.Join(dir, "blobs")
	all := map[string]string{"COMFYD_DATA_DIR": dir, "COMFYUI_URLS": d.comfy.URL}
	for k, v := range vars {
		all[k] = v
	}
	d.api = start(t, all)
	d.ready()
	return d
}

// stored lists the keys in the store with one of the prefixes; without any, those of what jobs have left there.
func (d *double) stored(prefixes ...string) []string {
	d.t.Helper()
	if len(prefixes) == 0 {
		prefixes = []string{"outputs/", "inputs/", "graphs/"}
	}
	s, err := store.Open(d.t.Context(), d.blobs)
	require.NoError(d.t, err)
	defer s.Close()
	keys := []string{}
	for _, p := range prefixes {
		for b, err := range s.List(d.t.Context(), p) {
			require.NoError(d.t, err)
			keys = append(keys, b.Key)
		}
	}
	return keys
}

// age makes what has these prefixes that much older.
func (d *double) age(by time.Duration, prefixes ...string) {
	d.t.Helper()
	at := time.Now().Add(-by)
	for _, key := range d.stored(prefixes...) {
		require.NoError(d.t, os.Chtimes(filepath.Join(d.blobs, filepath.FromSlash(key)), at, at))
	}
}

func (a *api) temporal() client.Client {
	a.t.Helper()
	c, err := client.Dial(client.Options{HostPort: a.app.TemporalAddress})
	require.NoError(a.t, err)
	a.t.Cleanup(c.Close)
	return c
}

// sweepID is the sweep's that a test runs.
const sweepID = "sweep-of-the-tests"

// sweep runs the sweep as its schedule would, and returns what it says.
func (d *double) sweep() map[string]any {
	d.t.Helper()
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	run, err := d.temporal().ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: sweepID, TaskQueue: "comfyui"}, workflows.SweepName)
	require.NoError(d.t, err)
	var swept map[string]any
	require.NoError(d.t, run.Get(ctx, &swept))
	require.NotEmpty(d.t, swept["told"], "the next one tells receivers from there on")
	delete(swept, "told")
	return swept
}

func (d *double) until(id, phase string) {
	d.t.Helper()
	var last any
	require.Eventually(d.t, func() bool {
		last = d.do("GET", "/status/"+id, nil).body["phase"]
		return last == phase
	}, 2*time.Minute, 20*time.Millisecond, "phase %s", phase)
}

// ticking is a graph that runs for seconds on the double, and can be interrupted.
func ticking(n int) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"1":{"class_type":"EmptyChromaRadianceLatentImage","inputs":{"width":4096,"height":4096,"batch_size":1}},
		"2":{"class_type":"VAELoader","inputs":{"vae_name":"pixel_space"}},
		"3":{"class_type":"VAEDecodeTiled","inputs":{"samples":["1",0],"vae":["2",0],"tile_size":64,"overlap":0,"temporal_size":%d,"temporal_overlap":4}},
		"4":{"class_type":"SaveImage","inputs":{"images":["3",0],"filename_prefix":"ticking"}}}`, 64+n))
}

// phases bring a job to each phase, and return it with what to undo there once it is over.
func phases() map[string]func(d *double) (id string, undo func()) {
	nothing := func() {}
	return map[string]func(d *double) (string, func()){
		"warming": func(d *double) (string, func()) {
			d.comfy.Stop()
			require.Eventually(d.t, func() bool { return d.do("GET", "/readyz", nil).code == 503 }, 2*time.Minute, 100*time.Millisecond)
			id := d.submit(map[string]any{"workflow": graph(31, "warming")})
			d.until(id, "warming")
			return id, d.comfy.Start
		},
		"queued in Temporal": func(d *double) (string, func()) {
			gate := d.comfy.Hold("EmptyImage")
			for n := range 2 { // the slots of the pool
				d.submit(map[string]any{"workflow": graph(32+n, "held")})
			}
			gate.Reached()
			d.comfy.Await("a prompt that waits", func() bool { return d.comfy.Waiting() == 1 })
			id := d.submit(map[string]any{"workflow": graph(39, "queued")})
			d.until(id, "queued")
			return id, gate.Open
		},
		"queued at ComfyUI": func(d *double) (string, func()) {
			gate := d.comfy.Hold("EmptyImage")
			d.submit(map[string]any{"workflow": graph(41, "held")})
			gate.Reached()
			id := d.submit(map[string]any{"workflow": graph(42, "queued")})
			d.comfy.Await("a prompt that waits", func() bool { return d.comfy.Waiting() == 1 })
			d.until(id, "queued")
			return id, gate.Open
		},
		"running": func(d *double) (string, func()) {
			id := d.submit(map[string]any{"workflow": ticking(1)})
			d.until(id, "running")
			return id, nothing
		},
		"collecting": func(d *double) (string, func()) {
			gate := d.comfy.HoldViews()
			id := d.submit(map[string]any{"workflow": graph(51, "collecting")})
			gate.Reached()
			d.until(id, "collecting")
			return id, gate.Open
		},
		"just finished": func(d *double) (string, func()) {
			gate := d.comfy.HoldHistory()
			id := d.submit(map[string]any{"workflow": graph(61, "finished")})
			gate.Reached()
			return id, gate.Open
		},
		"completed": func(d *double) (string, func()) {
			id := d.submit(map[string]any{"workflow": graph(71, "completed")})
			require.Equal(d.t, "COMPLETED", d.finish(id)["status"])
			return id, nothing
		},
	}
}

// rest waits until the double has nothing to do, and says how often it has run prompts.
func (d *double) rest() int {
	d.t.Helper()
	require.Eventually(d.t, func() bool { return d.comfy.Idle() }, 2*time.Minute, 20*time.Millisecond, "the double rests")
	return d.comfy.TotalRuns()
}

// TestCancelInEachPhase: a cancel is truthful wherever it meets the job, and as often as it is asked for.
func TestCancelInEachPhase(t *testing.T) {
	d := onDouble(t, nil)
	d.comfy.Step(2 * time.Millisecond)
	for name, reach := range phases() {
		t.Run(name, func(t *testing.T) {
			d := *d
			api := *d.api
			d.api, api.t = &api, t
			d.ready()
			id, undo := reach(&d)
			t.Cleanup(undo)
			first := d.do("POST", "/cancel/"+id, nil)
			again := d.do("POST", "/cancel/"+id, nil)
			if name != "collecting" { // there, the worker gives up the download that hangs
				undo()
			}
			if name == "completed" {
				require.Equal(t, 200, first.code)
				require.Equal(t, "COMPLETED", first.body["status"])
				require.Equal(t, first.body, again.body)
				return
			}
			require.Equal(t, 202, first.code, "%v", first.body)
			require.Equal(t, "canceling", first.body["phase"])
			require.Contains(t, []int{200, 202}, again.code)
			end := d.finish(id)
			require.Equal(t, "FAILED", end["status"], "%v", end)
			require.Equal(t, "canceled", end["code"], "%v", end)
			runs := d.rest()
			last := d.do("POST", "/cancel/"+id, nil)
			require.Equal(t, 200, last.code)
			require.Equal(t, "canceled", last.body["code"])
			require.Equal(t, end, d.finish(id), "an end never changes")
			require.Equal(t, runs, d.rest(), "nothing runs on after the job's end")
		})
	}
}

// TestDeleteInEachPhase: a DELETE ends a job wherever it meets it, and leaves nothing of it.
func TestDeleteInEachPhase(t *testing.T) {
	d := onDouble(t, nil)
	d.comfy.Step(2 * time.Millisecond)
	for name, reach := range phases() {
		t.Run(name, func(t *testing.T) {
			d := *d
			api := *d.api
			d.api, api.t = &api, t
			d.ready()
			id, undo := reach(&d)
			undo = sync.OnceFunc(undo)
			t.Cleanup(undo)
			if name == "just finished" || strings.HasPrefix(name, "queued") {
				undo() // the gate would hold the end up, which the cancel cannot interrupt
			}
			began := time.Now()
			r := d.do("DELETE", "/jobs/"+id, nil)
			for ; r.code == 202; r = d.do("DELETE", "/jobs/"+id, nil) {
				require.Equal(t, "canceling", r.body["phase"])
				require.Less(t, time.Since(began), time.Minute)
			}
			require.Equal(t, 204, r.code, "%v", r.body)
			undo()
			d.gone(id)
			runs := d.rest()
			require.Empty(t, d.stored("outputs/"+id+"/"))
			require.Equal(t, runs, d.rest(), "nothing runs on")
		})
	}
}

// gone asserts that nobody knows the job any more.
func (d *double) gone(id string) {
	d.t.Helper()
	for _, call := range []string{"GET /status/", "GET /jobs/", "POST /cancel/", "DELETE /jobs/"} {
		method, path, _ := strings.Cut(call, " ")
		r := d.do(method, path+id, nil)
		require.Equal(d.t, 404, r.code, "%s: %v", call, r.body)
		require.Equal(d.t, "Call ID not found or invalid.", r.body["error"])
	}
	require.NotContains(d.t, d.listed(""), id)
}

// listed are the IDs of GET /jobs, all pages of it.
func (d *double) listed(query string) []string {
	d.t.Helper()
	ids := []string{}
	cursor := ""
	for range 50 {
		r := d.do("GET", "/jobs?limit=3"+cursor+query, nil)
		require.Equal(d.t, 200, r.code, "%v", r.body)
		for _, j := range r.body["jobs"].([]any) {
			ids = append(ids, j.(map[string]any)["id"].(string))
		}
		next, ok := r.body["cursor"].(string)
		if !ok {
			return ids
		}
		cursor = "&cursor=" + next
	}
	d.t.Fatal("the list has no end")
	return nil
}

// large is a graph that is too large to travel in the workflow's input.
func large(color int) json.RawMessage {
	note := bytes.Repeat([]byte("x"), 140<<10)
	return json.RawMessage(fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":48,"batch_size":1,"color":%d},"_meta":{"title":"%s"}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"large"}}}`, color, note))
}
