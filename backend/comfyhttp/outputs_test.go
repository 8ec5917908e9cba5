package comfyhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/jpeg"
	"image/png"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
	"github.com/comfyd/comfyd/comfy"
)

// TestOutputShapes goes through the lists that nodes are known to make, and some that nobody knows.
func TestOutputShapes(t *testing.T) {
	file := func(name, kind string) map[string]any {
		return map[string]any{"filename": name, "subfolder": "", "type": kind}
	}
	for name, c := range map[string]struct {
		ui    map[string]any
		files []backend.File
		texts []string
	}{
		"video":     {map[string]any{"images": []any{file("v.mp4", "output")}, "animated": []any{true}}, []backend.File{{Key: "images", Filename: "v.mp4", Folder: "output"}}, nil},
		"audio":     {map[string]any{"audio": []any{file("a.flac", "output")}}, []backend.File{{Key: "audio", Filename: "a.flac", Folder: "output"}}, nil},
		"latents":   {map[string]any{"latents": []any{file("l.latent", "output")}}, []backend.File{{Key: "latents", Filename: "l.latent", Folder: "output"}}, nil},
		"gifs":      {map[string]any{"gifs": []any{map[string]any{"filename": "g.gif", "subfolder": "x/y", "type": "temp", "format": "image/gif", "frame_rate": 8.0, "fullpath": "/srv/g.gif"}}}, []backend.File{{Key: "gifs", Filename: "g.gif", Subfolder: "x/y", Folder: "temp"}}, nil},
		"no type":   {map[string]any{"images": []any{map[string]any{"filename": "n.png"}}}, []backend.File{{Key: "images", Filename: "n.png", Folder: "output"}}, nil},
		"two lists": {map[string]any{"b_images": []any{file("2.png", "temp")}, "a_images": []any{file("1.png", "temp")}}, []backend.File{{Key: "a_images", Filename: "1.png", Folder: "temp"}, {Key: "b_images", Filename: "2.png", Folder: "temp"}}, nil},
		"the same file twice": {map[string]any{"images": []any{file("1.png", "output"), file("1.png", "output"), file("1.png", "temp")}},
			[]backend.File{{Key: "images", Filename: "1.png", Folder: "output"}, {Key: "images", Filename: "1.png", Folder: "temp"}}, nil},
		"texts":         {map[string]any{"text": []any{"a", "b"}, "string": []any{"c"}}, nil, []string{"c", "a", "b"}},
		"bare text":     {map[string]any{"text": "whole"}, nil, []string{"whole"}},
		"numbers":       {map[string]any{"value": []any{1.5, true}}, nil, []string{"1.5", "true"}},
		"unknown":       {map[string]any{"boxes": []any{map[string]any{"x": 1}}, "nested": []any{[]any{1, 2}}}, nil, []string{`{"x":1}`, `[1,2]`}},
		"odd filename":  {map[string]any{"images": []any{map[string]any{"filename": 7}, map[string]any{"filename": ""}}}, nil, []string{`{"filename":7}`, `{"filename":""}`}},
		"nothing":       {map[string]any{}, nil, nil},
		"empty, absent": {map[string]any{"images": []any{}, "x": nil, "y": []any{nil}}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, nil)
			f.s.AddOutput("Shows", c.ui)
			require.NoError(t, f.b.Refresh(t.Context()))
			out := f.succeeds(f.run(f.prompt(shows("Shows")), nil))
			for i := range c.files {
				c.files[i].NodeID = "1"
			}
			require.Equal(t, c.files, out.Files)
			var texts []string
			for _, text := range out.Texts {
				texts = append(texts, text.Text)
			}
			require.Equal(t, c.texts, texts)
		})
	}
}

// TestOrderAndDuplicates: two equal nodes list one file, and both are told; nodes come in natural order.
func TestOrderAndDuplicates(t *testing.T) {
	f := setup(t, nil)
	graph := `{"1":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":2,"color":1}}`
	for _, id := range []string{"10", "9", "2"} {
		graph += fmt.Sprintf(`,"%s":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"same"}}`, id)
	}
	out := f.succeeds(f.run(f.prompt(graph+"}"), nil))
	var got []string
	for _, file := range out.Files {
		got = append(got, file.NodeID+" "+file.Filename)
	}
	require.Equal(t, []string{"2 same_00001_.png", "2 same_00002_.png", "9 same_00001_.png", "9 same_00002_.png", "10 same_00001_.png", "10 same_00002_.png"}, got)
	require.Len(t, f.s.Files("output"), 2)
}

func TestSocketNodes(t *testing.T) {
	t.Run("frames of others are left alone", func(t *testing.T) {
		f := setup(t, func(_ *Options, tm *timing) { tm.preview = time.Hour })
		f.s.Previews(true)
		gate := f.s.Hold("SaveImageWebsocket")
		graph := tiled(5)[:len(tiled(5))-1] + `,"9":{"class_type":"SaveImageWebsocket","inputs":{"images":["3",0]}}}`
		end := f.run(f.prompt(graph), nil)
		gate.Reached()
		f.s.Broadcast("progress", map[string]any{"value": 1, "max": 9, "node": "9", "prompt_id": "somebody else's"})
		f.s.Broadcast("crystools.monitor", map[string]any{"cpu": 3})
		gate.Open()
		out := f.succeeds(end)
		require.Len(t, out.Files, 2)
		require.Equal(t, "tiled_00001_.png", out.Files[0].Filename)
		require.Equal(t, "node_9_00001.png", out.Files[1].Filename)
		require.Equal(t, 1, f.rec.Blobs(), "previews were stored")
		require.Len(t, f.rec.Previews(), 1, "of all that came within a moment")
		shown := f.rec.Previews()[0]
		require.Equal(t, "3 image/jpeg", shown.NodeID+" "+shown.ContentType)
		_, err := jpeg.Decode(bytes.NewReader(shown.Data))
		require.NoError(t, err)
		_, err = png.Decode(bytes.NewReader(f.rec.Blob(out.Files[1].Blob.Key)))
		require.NoError(t, err)
		_, _, err = f.b.Open(t.Context(), out.Handle, out.Files[1])
		errorOf(t, err, comfy.Internal)
	})
	t.Run("broadcast frames while another node runs", func(t *testing.T) {
		f := setup(t, nil)
		gate := f.s.Hold("EmptyImage")
		end := f.run(f.prompt(sockets("SaveImageWebsocket", 1)), nil)
		gate.Reached()
		f.s.BroadcastImage([]byte("a stranger's"))
		gate.Open()
		require.Len(t, f.succeeds(end).Files, 1)
		require.Empty(t, f.rec.Previews(), "nor shown to the job that runs")
	})
	t.Run("tooling nodes", func(t *testing.T) {
		f := setup(t, nil)
		out := f.succeeds(f.run(f.prompt(sockets("ETN_SendImageWebSocket", 3)), nil))
		require.Len(t, out.Files, 3)
		require.Empty(t, out.Texts)
		again := f.run(f.prompt(sockets("ETN_SendImageWebSocket", 3)), &out.Handle)
		require.Equal(t, "9", f.fails(again, comfy.OutputLost).NodeID)
	})
	t.Run("the socket breaks before", func(t *testing.T) {
		f := setup(t, nil)
		gate := f.s.Hold("SaveImageWebsocket")
		end := f.run(f.prompt(sockets("SaveImageWebsocket", 2)), nil)
		gate.Reached()
		f.s.CloseSockets()
		f.s.Await("a new socket", func() bool { return f.s.Sockets() == 1 })
		gate.Open()
		require.Len(t, f.succeeds(end).Files, 2, "the new socket has seen them all")
	})
	t.Run("the socket is silent", func(t *testing.T) {
		f := setup(t, func(_ *Options, tm *timing) { tm.frames = 200 * time.Millisecond })
		gate := f.s.Hold("SaveImageWebsocket")
		end := f.run(f.prompt(sockets("SaveImageWebsocket", 2)), nil)
		gate.Reached()
		f.s.Mute(true)
		gate.Open()
		f.fails(end, comfy.OutputLost)
	})
	t.Run("no socket", func(t *testing.T) {
		f := setup(t, nil)
		f.s.NoSockets(true)
		f.fails(f.run(f.prompt(sockets("SaveImageWebsocket", 2)), nil), comfy.OutputLost)
	})
	t.Run("the store fails", func(t *testing.T) {
		f := setup(t, nil)
		f.rec.StoreErr = errors.New("disk full")
		gate := f.s.Hold("SaveImage")
		graph := strings.TrimSuffix(sockets("SaveImageWebsocket", 1), "}") + `,"95":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"x"}}}`
		end := f.run(f.prompt(graph), nil)
		f.s.Await("an interruption: nobody goes on with it", func() bool { return len(f.s.Interrupts()) > 0 })
		gate.Open()
		require.ErrorIs(t, f.fails(end, comfy.Storage), f.rec.StoreErr)
	})
	t.Run("the store is slow", func(t *testing.T) { // what the socket holds is not missed, however long it takes to store it
		f := setup(t, func(_ *Options, tm *timing) { tm.frames, tm.pollFirst = 200*time.Millisecond, time.Millisecond })
		out, err := f.b.Run(t.Context(), f.prompt(sockets("SaveImageWebsocket", 20)), nil, slowRecorder{f.rec})
		require.NoError(t, err)
		require.Len(t, out.Files, 20)
	})
}

// slowRecorder takes its time to store.
type slowRecorder struct{ *backendtest.Recorder }

func (s slowRecorder) Store(ctx context.Context, in io.Reader) (comfy.Blob, error) {
	<-time.After(50 * time.Millisecond)
	return s.Recorder.Store(ctx, in)
}

// TestBlocked: a node's message that its output is blocked comes by socket only, beside a success.
func TestBlocked(t *testing.T) {
	f := setup(t, func(_ *Options, tm *timing) { tm.pollFirst, tm.pollMost = time.Minute, time.Minute })
	gate := f.s.Hold("SaveImage")
	p := f.prompt(solid(1))
	end := f.run(p, nil)
	gate.Reached()
	f.s.Broadcast("execution_error", map[string]any{"prompt_id": p.ID, "node_id": "2", "node_type": "SaveImage",
		"exception_type": "ExecutionBlocked", "exception_message": "Execution Blocked: no face found"})
	gate.Open()
	e := f.fails(end, comfy.NodeFailed)
	require.Contains(t, e.Message, "no face found")
	require.Equal(t, "2", e.NodeID)
}

func TestCached(t *testing.T) {
	f := setup(t, nil)
	first := f.succeeds(f.run(f.prompt(solid(1)), nil))
	require.False(t, first.Cached)
	f.s.RemoveFile("output", first.Files[0].Filename)
	second := f.succeeds(f.run(f.prompt(solid(1)), nil))
	require.True(t, second.Cached)
	_, err := f.read(second, second.Files[0])
	require.NoError(t, err, "a file of an earlier prompt was listed")
	require.Equal(t, 1, f.s.NodeRuns("EmptyImage"))
	require.Equal(t, 2, f.s.NodeRuns("SaveImage"))
	fresh := f.prompt(solid(1))
	fresh.Fresh = true
	require.False(t, f.succeeds(f.run(fresh, nil)).Cached)
	require.Equal(t, 2, f.s.NodeRuns("EmptyImage"))
}

// TestProgress is told often enough and not too often, and never goes back.
func TestProgress(t *testing.T) {
	f := setup(t, nil)
	f.s.Step(2 * time.Millisecond)
	gate := f.s.HoldStep(125)
	begin := time.Now()
	end := f.run(f.prompt(tiled(250)), nil)
	gate.Reached()
	require.Eventually(t, func() bool {
		u := f.rec.Updates()
		return len(u) > 0 && u[len(u)-1].Progress.Step == 125
	}, patience, time.Millisecond, "the newest word is told, also where no other follows")
	gate.Open()
	out := f.succeeds(end)
	took := time.Since(begin)
	require.Len(t, out.Files, 1)
	updates := f.rec.Updates()
	require.GreaterOrEqual(t, len(updates), 3, "the begin, the step, the end")
	require.LessOrEqual(t, len(updates), 2*int(took/(100*time.Millisecond))+5, "one by the clock and one by an event each time")
	value, stepped, between := -1.0, false, false
	for _, u := range updates {
		require.GreaterOrEqual(t, u.Progress.Value, value)
		require.Equal(t, 4, u.Progress.NodesTotal)
		value = u.Progress.Value
		if u.Progress.CurrentNode == "3" && u.Progress.Step > 0 {
			stepped = true
			require.Equal(t, 250, u.Progress.Steps)
			require.LessOrEqual(t, u.Progress.Value, 0.75)
			between = between || u.Progress.Value > 0.5
			require.True(t, u.Running)
		}
	}
	require.True(t, stepped)
	require.True(t, between, "the steps of a node count")
	require.Equal(t, 1.0, value)
}
