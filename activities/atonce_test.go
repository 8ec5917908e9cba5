package activities_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// makes lets the double's prompts end with some files and texts.
func (b *bench) makes(files, texts int) {
	b.double.run = func(_ context.Context, p *backend.Prompt, _ *backend.Handle, _ backend.Recorder) (*backend.Outcome, error) {
		out := &backend.Outcome{Handle: handle(p)}
		for range texts {
			out.Texts = append(out.Texts, backend.Text{NodeID: "3", Text: "said"})
		}
		for i := range files {
			out.Files = append(out.Files, backend.File{NodeID: "9", Key: "images", Filename: fmt.Sprintf("%d.png", i), Folder: "output"})
		}
		return out, nil
	}
}

// TestPromptStoresFewOutputsItself, as Collect would.
func TestPromptStoresFewOutputsItself(t *testing.T) {
	b := newBenchWith(t, func(o *activities.Options) { o.AtOnce = time.Minute })
	raw := pngBytes(t, 31, 17)
	b.served(raw, int64(len(raw)))
	b.makes(2, 1)
	var out activities.Prompted
	require.NoError(t, b.do(t, comfy.ActivityPrompt, promptInput(), &out))
	require.Len(t, out.Files, 2)
	var collected activities.Collected
	require.NoError(t, b.do(t, comfy.ActivityCollect, activities.CollectInput{JobID: "job-1", Outcome: out.Outcome}, &collected))
	require.Equal(t, &collected, out.Collected)
	require.Equal(t, raw, b.store.blobs[out.Collected.Images[1].Ref])
	require.Equal(t, "said", out.Collected.Texts[0].Text)
}

// TestPromptLeavesOutputsToCollect where they are many, or anything is in the way: its slot is the GPU's.
func TestPromptLeavesOutputsToCollect(t *testing.T) {
	for name, c := range map[string]struct {
		files int
		texts int
		store error
		open  func(context.Context) error
	}{
		"many":              {files: 9},
		"many texts":        {files: 1, texts: 8},
		"the store is away": {files: 1, store: errors.New("away")},
		"a file is gone":    {files: 1, open: func(context.Context) error { return backend.Errorf(comfy.OutputLost, "gone") }},
		"the backend is slow": {files: 1, open: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			raw := pngBytes(t, 3, 3)
			b.served(raw, -1)
			if c.open != nil {
				b.double.openCtx = func(ctx context.Context) (io.ReadCloser, int64, error) { return nil, 0, c.open(ctx) }
			}
			b.store.err = c.store
			b.makes(c.files, c.texts)
			began := time.Now()
			var out activities.Prompted
			require.NoError(t, b.do(t, comfy.ActivityPrompt, promptInput(), &out))
			require.Nil(t, out.Collected)
			require.Len(t, out.Files, c.files)
			require.Less(t, time.Since(began), time.Minute)
		})
	}
}

// TestLook answers at once, whatever the answer.
func TestLook(t *testing.T) {
	for name, c := range map[string]struct {
		ready error
		found bool
		code  comfy.Code
	}{
		"ready":                {found: true},
		"starting":             {ready: backend.Errorf(comfy.BackendUnavailable, "it starts")},
		"the graph is refused": {ready: backend.Errorf(comfy.InvalidWorkflow, "no such node"), code: comfy.InvalidWorkflow},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.double.ready = func() error { return c.ready }
			var place *activities.Placement
			err := b.do(t, comfy.ActivityLook, job, &place)
			if c.code != "" {
				f, final := failure(t, err)
				require.Equal(t, c.code, f.Code)
				require.True(t, final)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.found, place != nil)
			if c.found {
				require.Equal(t, "url", place.Pool.Name)
				require.Equal(t, time.Hour, place.RunTimeout)
			}
		})
	}
}

// TestLookIsNotSure: a refusal that comes when the time for the look is over may rest on what a ComfyUI has had before.
func TestLookIsNotSure(t *testing.T) {
	b := newBench(t)
	ctx, done := context.WithCancel(t.Context())
	b.double.ready = func() error {
		done()
		return backend.Errorf(comfy.InvalidWorkflow, "no such node")
	}
	place, err := b.all.Look(ctx, job)
	require.NoError(t, err)
	require.Nil(t, place)
}
