// Package backendtest is the conformance suite of backend.Backend. It knows no backend: whatever runs ComfyUI prompts
// passes it, on a double and on a real ComfyUI. The graphs in it use nodes that every ComfyUI has, and no model.
package backendtest

import (
	"context"
	"errors"
	"image/color"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// limit is how long one test may take on a slow machine.
const limit = 3 * time.Minute

// Run runs the suite. newBackend makes a backend with one pool that a test has for itself, and arranges for its end.
func Run(t *testing.T, newBackend func(t *testing.T) backend.Backend) {
	for _, test := range []struct {
		name string
		run  func(s *suite)
	}{
		{"Servers", (*suite).servers},
		{"Simple", (*suite).simple},
		{"Batch", (*suite).batch},
		{"Text", (*suite).text},
		{"SocketFrames", (*suite).socketFrames},
		{"SocketFramesCannotBeStored", (*suite).socketFramesLost},
		{"Inputs", (*suite).inputs},
		{"Invalid", (*suite).invalid},
		{"NodeFails", (*suite).nodeFails},
		{"HandleCannotBeRecorded", (*suite).handleFails},
		{"Reattach", (*suite).reattach},
		{"ReattachAfterEnd", (*suite).reattachEnded},
		{"ReattachUnknown", (*suite).reattachUnknown},
		{"ReattachWithoutServer", (*suite).reattachAnywhere},
		{"CancelRunning", (*suite).cancelRunning},
		{"CancelWaiting", (*suite).cancelWaiting},
		{"CancelNothing", (*suite).cancelNothing},
		{"CachedRerun", (*suite).cachedRerun},
		{"Release", (*suite).release},
		{"Concurrent", (*suite).concurrent},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			s := &suite{T: t, ctx: ctx, b: newBackend(t)}
			s.ready()
			test.run(s)
		})
	}
}

type suite struct {
	*testing.T
	ctx context.Context
	b   backend.Backend
}

// ready waits for a server.
func (s *suite) ready() {
	p := s.prompt(solid(8, 8, 1, 1))
	require.Eventually(s.T, func() bool { return s.b.Ready(s.ctx, p) == nil }, time.Minute, 50*time.Millisecond, "no server became ready")
}

// run carries a prompt to its end.
func (s *suite) run(p *backend.Prompt) (*backend.Outcome, *Recorder) {
	s.Helper()
	rec := NewRecorder()
	out, err := s.b.Run(s.ctx, p, nil, rec)
	require.NoError(s.T, err)
	require.Equal(s.T, p.ID, out.Handle.PromptID)
	return out, rec
}

// fails checks an error's type and code.
func (s *suite) fails(err error, code comfy.Code) *backend.Error {
	s.Helper()
	require.Error(s.T, err)
	var e *backend.Error
	require.ErrorAs(s.T, err, &e)
	require.Equal(s.T, code, e.Code, "%v", err)
	require.NotEmpty(s.T, e.Message)
	require.NotContains(s.T, e.Message, "Traceback")
	require.NotRegexp(s.T, `/\w+/\w+\.py`, e.Message)
	return e
}

func (s *suite) servers() {
	pool := s.b.Pool()
	require.Regexp(s.T, `^[a-z0-9-]+$`, pool.Name)
	require.Positive(s.T, pool.Slots)
	require.NoError(s.T, s.b.Refresh(s.ctx))
	servers := s.b.Servers()
	require.NotEmpty(s.T, servers)
	for _, server := range servers {
		require.True(s.T, server.Healthy, "%s: %s", server.Name, server.Problem)
		require.NotEmpty(s.T, server.Name)
		require.NotEmpty(s.T, server.Version)
		require.WithinDuration(s.T, time.Now(), server.LastSeen, time.Minute)
		require.WithinDuration(s.T, time.Now(), server.CatalogAt, 2*time.Minute)
		require.Contains(s.T, string(server.Catalog), `"EmptyImage"`)
	}
}

func (s *suite) simple() {
	p := s.prompt(solid(64, 48, 1, 0x2040f0))
	out, rec := s.run(p)
	require.Len(s.T, out.Files, 1)
	f := out.Files[0]
	require.Equal(s.T, "2", f.NodeID)
	require.Equal(s.T, "images", f.Key)
	require.Equal(s.T, "output", f.Folder)
	require.Equal(s.T, "comfyd-suite", f.Subfolder)
	require.Empty(s.T, out.Texts)
	s.solid(out, f, 64, 48, color.NRGBA{0x20, 0x40, 0xf0, 255})
	require.False(s.T, out.StartedAt.IsZero())
	require.False(s.T, out.EndedAt.Before(out.StartedAt))

	updates := rec.Updates()
	h := last(rec)
	require.Equal(s.T, backend.Handle{Pool: s.b.Pool().Name, Server: h.Server, PromptID: p.ID, JobID: p.JobID, Submission: 1,
		CallID: h.CallID}, h)
	require.Equal(s.T, h.CallID, out.Handle.CallID)
	require.NotEmpty(s.T, updates)
	value := -1.0
	for _, u := range updates {
		require.GreaterOrEqual(s.T, u.Progress.Value, value, "progress went back")
		value = u.Progress.Value
	}
	end := updates[len(updates)-1]
	require.Equal(s.T, comfy.Progress{Value: 1, NodesDone: 2, NodesTotal: 2}, end.Progress)
	require.True(s.T, end.Running)
}

func (s *suite) batch() {
	out, _ := s.run(s.prompt(solid(32, 16, 4, 0x10ff10)))
	require.Len(s.T, out.Files, 4)
	names := map[string]bool{}
	for _, f := range out.Files {
		names[f.Filename] = true
		s.solid(out, f, 32, 16, color.NRGBA{0x10, 0xff, 0x10, 255})
	}
	require.Len(s.T, names, 4)
}

func (s *suite) text() {
	out, _ := s.run(s.prompt(`{"1":{"class_type":"StringConcatenate","inputs":{"string_a":"Grüße ","string_b":"<&>\"\\","delimiter":"\n"}},
		"2":{"class_type":"PreviewAny","inputs":{"source":["1",0]}}}`))
	require.Equal(s.T, []backend.Text{{NodeID: "2", Text: "Grüße \n<&>\"\\"}}, out.Texts)
	require.Empty(s.T, out.Files)
}

const socketGraph = `{"1":{"class_type":"EmptyImage","inputs":{"width":40,"height":20,"batch_size":3,"color":255}},
	"9":{"class_type":"SaveImageWebsocket","inputs":{"images":["1",0]}}}`

func (s *suite) socketFrames() {
	out, rec := s.run(s.prompt(socketGraph))
	require.Len(s.T, out.Files, 3)
	kept := out.Files[0].Blob == nil // by the backend itself, like any other file
	for _, f := range out.Files {
		require.Equal(s.T, "9", f.NodeID)
		if kept {
			s.solid(out, f, 40, 20, color.NRGBA{0, 0, 255, 255})
			continue
		}
		require.NotNil(s.T, f.Blob)
		checkSolid(s.T, rec.Blob(f.Blob.Key), 40, 20, color.NRGBA{0, 0, 255, 255})
	}
	require.Len(s.T, map[string]bool{out.Files[0].Filename: true, out.Files[1].Filename: true, out.Files[2].Filename: true}, 3)

	again, err := s.b.Run(s.ctx, s.prompt(socketGraph), &out.Handle, NewRecorder())
	if kept {
		require.NoError(s.T, err)
		require.Equal(s.T, out.Files, again.Files)
		return
	}
	// What was sent only once cannot be had again, and that is said.
	require.Equal(s.T, "9", s.fails(err, comfy.OutputLost).NodeID)
}

func (s *suite) socketFramesLost() {
	rec := NewRecorder()
	rec.StoreErr = errors.New("disk full")
	out, err := s.b.Run(s.ctx, s.prompt(socketGraph), nil, rec)
	if err == nil { // the backend has kept them, and did not ask for the store
		require.Len(s.T, out.Files, 3)
		require.Nil(s.T, out.Files[0].Blob)
		return
	}
	s.fails(err, comfy.Storage)
}

func (s *suite) inputs() {
	red, green := pngOf(16, 24, color.NRGBA{200, 0, 0, 255}), pngOf(16, 24, color.NRGBA{0, 200, 0, 255})
	one, two := s.prompt(load("dir/same näme.png")), s.prompt(load("dir/same näme.png [input]"))
	one.Inputs = []backend.Input{input("dir/same näme.png", red)}
	two.Inputs = []backend.Input{input("dir/same näme.png", green)}
	outs := s.together(one, two)
	s.solid(outs[0], outs[0].Files[0], 16, 24, color.NRGBA{200, 0, 0, 255})
	s.solid(outs[1], outs[1].Files[0], 16, 24, color.NRGBA{0, 200, 0, 255})
	require.NotEqual(s.T, outs[0].Handle.Inputs, outs[1].Handle.Inputs)
	for _, out := range outs {
		require.NoError(s.T, s.b.Release(s.ctx, out.Handle, out.Files))
	}

	bad := s.prompt(load("dir/same näme.png"))
	bad.Inputs = []backend.Input{input("dir/same näme.png", red)}
	bad.Inputs[0].SHA256 = input("", green).SHA256
	_, err := s.b.Run(s.ctx, bad, nil, NewRecorder())
	s.fails(err, comfy.Storage)
}

func (s *suite) invalid() {
	unknown := s.prompt(`{"1":{"class_type":"NoSuchNodeAnywhere","inputs":{}},"2":{"class_type":"PreviewAny","inputs":{"source":["1",0]}}}`)
	e := s.fails(s.b.Ready(s.ctx, unknown), comfy.InvalidWorkflow)
	require.Contains(s.T, e.NodeErrors, "1")
	rec := NewRecorder()
	_, err := s.b.Run(s.ctx, unknown, nil, rec)
	s.fails(err, comfy.InvalidWorkflow)
	require.Empty(s.T, rec.Handles(), "a handle was recorded for a prompt that was not sent")

	_, err = s.b.Run(s.ctx, s.prompt(solid(0, 8, 1, 1)), nil, NewRecorder())
	e = s.fails(err, comfy.InvalidWorkflow)
	require.Contains(s.T, e.NodeErrors, "1")
	require.Equal(s.T, "EmptyImage", e.NodeErrors["1"].ClassType)
	require.Equal(s.T, "value_smaller_than_min", e.NodeErrors["1"].Errors[0].Type)

	s.run(s.prompt(solid(8, 8, 1, 3)))
}

func (s *suite) nodeFails() {
	p := s.prompt(load("notes.png"))
	p.Inputs = []backend.Input{input("notes.png", []byte("this is no image"))}
	_, err := s.b.Run(s.ctx, p, nil, NewRecorder())
	e := s.fails(err, comfy.NodeFailed)
	require.Equal(s.T, "1", e.NodeID)
	require.Contains(s.T, e.Message, "LoadImage")
	require.Contains(s.T, e.Message, "UnidentifiedImageError")
	require.Contains(s.T, e.Message, "'notes.png'", "the file is named as the client named it")
	require.NotRegexp(s.T, `/\S+/`, e.Message, "a path of the server")
	require.True(s.T, e.Ran)

	s.run(s.prompt(solid(8, 8, 1, 4)))
}

func (s *suite) cachedRerun() {
	graph := solid(24, 24, 1, 0x334455)
	first, _ := s.run(s.prompt(graph))
	require.NoError(s.T, s.b.Release(s.ctx, first.Handle, first.Files))
	second, _ := s.run(s.prompt(graph))
	require.True(s.T, second.Cached)
	require.Len(s.T, second.Files, 1)
	s.solid(second, second.Files[0], 24, 24, color.NRGBA{0x33, 0x44, 0x55, 255})

	fresh := s.prompt(graph)
	fresh.Fresh = true
	third, _ := s.run(fresh)
	require.False(s.T, third.Cached)
	s.solid(third, third.Files[0], 24, 24, color.NRGBA{0x33, 0x44, 0x55, 255})
}

func (s *suite) release() {
	p := s.prompt(load("a.png"))
	p.Inputs = []backend.Input{input("a.png", pngOf(16, 16, color.NRGBA{9, 9, 9, 255}))}
	out, rec := s.run(p)
	require.Len(s.T, last(rec).Inputs, 1)
	keep, _ := s.run(s.prompt(solid(16, 16, 1, 0x090909)))
	for range 2 {
		require.NoError(s.T, s.b.Release(s.ctx, out.Handle, out.Files))
	}
	_, _, err := s.b.Open(s.ctx, out.Handle, out.Files[0])
	s.fails(err, comfy.OutputLost)
	s.solid(keep, keep.Files[0], 16, 16, color.NRGBA{9, 9, 9, 255})
	h := last(rec)
	h.CallID = ""
	_, err = s.b.Run(s.ctx, p, &h, NewRecorder())
	s.fails(err, comfy.BackendLost) // whether it had run, a backend may know

	missing := keep.Files[0]
	missing.Filename = "no-such-file.png"
	_, _, err = s.b.Open(s.ctx, keep.Handle, missing)
	s.fails(err, comfy.OutputLost)
}

func (s *suite) concurrent() {
	var prompts []*backend.Prompt
	for i := range 20 {
		prompts = append(prompts, s.prompt(solid(16, 16, 1, 0x100000+i)))
	}
	for i, out := range s.together(prompts...) {
		require.Equal(s.T, prompts[i].ID, out.Handle.PromptID)
		s.solid(out, out.Files[0], 16, 16, color.NRGBA{0x10, 0, byte(i), 255})
		require.NoError(s.T, s.b.Release(s.ctx, out.Handle, out.Files))
	}
}

// together runs prompts at the same time.
func (s *suite) together(prompts ...*backend.Prompt) []*backend.Outcome {
	ends := make([]chan result, len(prompts))
	for i, p := range prompts {
		ends[i] = make(chan result, 1)
		go func() {
			out, err := s.b.Run(s.ctx, p, nil, NewRecorder())
			ends[i] <- result{out, err}
		}()
	}
	outs := make([]*backend.Outcome, len(prompts))
	for i, end := range ends {
		r := <-end
		require.NoError(s.T, r.err)
		outs[i] = r.out
	}
	return outs
}
