package comfyhttp

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// withInput runs a job that has an input, an output and a preview.
func withInput(f *fixture) *backend.Outcome {
	f.Helper()
	p := f.prompt(`{"1":{"class_type":"LoadImage","inputs":{"image":"in.png"}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"a b/q?&#%+ \"ä"}},
		"3":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`)
	source := f.succeeds(f.run(f.prompt(solid(1)), nil))
	data, err := f.read(source, source.Files[0])
	require.NoError(f.T, err)
	p.Inputs = []backend.Input{input("in.png", data)}
	out := f.succeeds(f.run(p, nil))
	require.Len(f.T, out.Files, 2)
	return out
}

func TestReleaseEmpties(t *testing.T) {
	f := setup(t, nil)
	out := withInput(f)
	for _, file := range out.Files {
		_, err := f.read(out, file)
		require.NoError(t, err)
	}
	require.NoError(t, f.b.Release(t.Context(), out.Handle, out.Files))
	left := 0
	for _, folder := range []string{"input", "temp"} {
		for name, data := range f.s.Files(folder) {
			require.Empty(t, data, name)
			left++
		}
	}
	require.Equal(t, 2, left)
	require.Empty(t, f.s.Files("output")[`a b/q?&#%+ "ä_00001_.png`])
	require.NotEmpty(t, f.s.Files("output")["solid_00001_.png"], "another job's")
	require.False(t, f.s.Has(out.Handle.PromptID))

	uploads := f.s.Requests("POST /upload/image")
	require.NoError(t, f.b.Release(t.Context(), out.Handle, out.Files))
	require.Equal(t, uploads, f.s.Requests("POST /upload/image"), "what is empty is not emptied again")
}

func TestReleaseByRemover(t *testing.T) {
	var removed []RemotePath
	var f *fixture
	f = setup(t, func(o *Options, _ *timing) {
		o.Remover = func(_ context.Context, server string, files []RemotePath) error {
			if server != f.s.URL {
				return fmt.Errorf("server %s", server)
			}
			removed = append(removed, files...)
			for _, file := range files {
				f.s.RemoveFile(file.Folder, strings.TrimPrefix(file.Subfolder+"/"+file.Filename, "/"))
			}
			return nil
		}
	})
	out := withInput(f)
	for range 2 {
		require.NoError(t, f.b.Release(t.Context(), out.Handle, out.Files))
	}
	require.Len(t, removed, 3)
	require.Empty(t, f.s.Files("input"))
	require.Empty(t, f.s.Files("temp"))
	require.Equal(t, []string{"solid_00001_.png"}, slices.Collect(maps.Keys(f.s.Files("output"))))
}

// TestReleaseOfWhatWaits: a prompt that a cancel could not take out of the queue does not run for a job that is over.
func TestReleaseOfWhatWaits(t *testing.T) {
	f := setup(t, nil)
	gate := f.s.Hold("EmptyImage")
	first := f.run(f.prompt(solid(1)), nil)
	gate.Reached()
	f.rec = newRecorder()
	p := f.prompt(solid(2))
	ctx, leave := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() {
		_, err := f.b.Run(ctx, p, nil, f.rec)
		end <- err
	}()
	f.s.Await("a prompt that waits", func() bool { return f.s.Waiting() == 1 })
	leave()
	require.ErrorIs(t, <-end, context.Canceled)
	require.NoError(t, f.b.Release(t.Context(), f.rec.Handles()[0], nil))
	require.Zero(t, f.s.Waiting())
	gate.Open()
	f.succeeds(first)
	require.Zero(t, f.s.Runs(p.ID))
}

// TestReleaseKeepsOthersFiles: a node may list any file, and a name may have been given anew.
func TestReleaseKeepsOthersFiles(t *testing.T) {
	f := setup(t, nil)
	long := time.Now().Add(-time.Hour)
	f.s.PutFile("output", "old.png", []byte("old"), long)
	f.s.AddOutput("Lists", map[string]any{"images": []any{
		map[string]any{"filename": "old.png", "subfolder": "", "type": "output"},
		map[string]any{"filename": "photo.png", "subfolder": "", "type": "input"},
		map[string]any{"filename": "new.png", "subfolder": "", "type": "output"}}})
	require.NoError(t, f.b.Refresh(t.Context()))
	gate := f.s.Hold("Lists")
	end := f.run(f.prompt(shows("Lists")), nil)
	gate.Reached()
	f.s.PutFile("input", "photo.png", []byte("photo"), time.Now()) // somebody puts it there while the prompt runs
	gate.Open()
	out := f.succeeds(end)
	require.Len(t, out.Files, 3)
	f.s.PutFile("output", "new.png", []byte("another job's"), out.Handle.To.Add(time.Second))
	h := out.Handle
	h.Inputs = []string{"photo.png", "comfyd/../photo.png", "../output/old.png"}
	require.NoError(t, f.b.Release(t.Context(), h, out.Files))
	require.Equal(t, map[string][]byte{"old.png": []byte("old"), "new.png": []byte("another job's")}, f.s.Files("output"))
	require.Equal(t, map[string][]byte{"photo.png": []byte("photo")}, f.s.Files("input"))
}

// TestReleaseWithFirstHandle: the handle of before the end does not know when the prompt ran, but the history does.
func TestReleaseWithFirstHandle(t *testing.T) {
	f := setup(t, nil)
	out := f.succeeds(f.run(f.prompt(solid(1)), nil))
	require.NoError(t, f.b.Release(t.Context(), f.rec.Handles()[0], out.Files))
	require.Empty(t, f.s.Files("output")["solid_00001_.png"])

	again := f.succeeds(f.run(f.prompt(solid(1)), nil))
	f.s.Forget(again.Handle.PromptID)
	require.NoError(t, f.b.Release(t.Context(), f.rec.Handles()[1], again.Files))
	require.NotEmpty(t, f.s.Files("output")["solid_00002_.png"], "nobody knows whose it is")
}

func TestReleaseFails(t *testing.T) {
	f := setup(t, nil)
	out := withInput(f)
	f.s.Stop()
	errorOf(t, f.b.Release(t.Context(), out.Handle, out.Files), comfy.BackendUnavailable)
	f.s.Start()
	require.NoError(t, f.b.Release(t.Context(), out.Handle, out.Files))
	h := out.Handle
	h.Server = "http://elsewhere:1"
	require.NoError(t, f.b.Release(t.Context(), h, out.Files), "a server that is not configured any more")
}

// TestInputsOfRefusedPrompt are not left behind.
func TestInputsOfRefusedPrompt(t *testing.T) {
	f := setup(t, nil)
	f.s.Refuse("LoadImage", "no")
	p := f.prompt(`{"1":{"class_type":"LoadImage","inputs":{"image":"in.png"}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`)
	p.Inputs = []backend.Input{input("in.png", bytes.Repeat([]byte("x"), 1000))}
	f.fails(f.run(p, nil), comfy.InvalidWorkflow)
	for name, data := range f.s.Files("input") {
		require.Empty(t, data, name)
	}
	require.Len(t, f.s.Files("input"), 1)
}
