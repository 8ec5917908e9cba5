package modal

import (
	"encoding/base64"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakemodal"
)

// TestRealPreviews: what a sampler of the real ComfyUI has so far comes from the product's own Python class through
// Modal's queue.
func TestRealPreviews(t *testing.T) {
	m := realApp(t, nil)
	backendtest.MakeModel(t, os.Getenv("COMFYD_TEST_COMFYUI_DIR"), m.VolumeDir("comfyd-models"))
	b, err := New(Options{Previews: true, Log: logTo(t)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	p := backendtest.Prompt(t, backendtest.Sampled(1))
	require.Eventually(t, func() bool { return b.known() != nil && b.Ready(t.Context(), p) == nil }, 2*patience, 100*time.Millisecond)
	backendtest.RequirePreviews(t, b, 60) // seconds, of which one has a picture at most
}

// TestPreviews: pictures alone are told of, those of an app that sends them unasked as well, and none where none are
// wanted.
func TestPreviews(t *testing.T) {
	show := func(node, kind string) map[string]any {
		return map[string]any{"node": node, "type": kind, "data": base64.StdEncoding.EncodeToString([]byte("picture of " + node))}
	}
	for name, c := range map[string]struct {
		wanted bool
		shown  any
		told   []backend.Preview
	}{
		"a picture":           {true, show("4", "image/jpeg"), []backend.Preview{{NodeID: "4", ContentType: "image/jpeg", Data: []byte("picture of 4")}}},
		"not wanted":          {false, show("4", "image/jpeg"), nil},
		"no picture":          {true, show("4", "text/html"), nil},
		"no bytes of a sense": {true, map[string]any{"node": "4", "type": "image/png", "data": "%%"}, nil},
		"nothing of a sense":  {true, 7, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil, func(_ *fakemodal.Server, o *Options, _ *timing) { o.Previews = c.wanted })
			w.ready(w.b)
			p, let := w.held(script{"preview": c.shown})
			end := w.run(w.ctx(), p, nil)
			w.stepped() // the preview comes with it
			let()
			w.succeeds(end)
			require.Equal(t, c.told, w.rec.Previews())
			require.Contains(t, w.rec.Updates(), backend.Update{Running: true, Progress: comfy.Progress{Value: 0.125, NodesTotal: 2, CurrentNode: "1", Step: 1, Steps: 4}},
				"the events beside it count all the same")
		})
	}
}
