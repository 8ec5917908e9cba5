package comfyhttp

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/comfy"
)

// TestPromptBody: exactly what is ours is changed, and numbers keep their digits.
func TestPromptBody(t *testing.T) {
	f := setup(t, func(_ *Options, tm *timing) { tm.probe = time.Hour })
	f.s.AddOutput("Shows", map[string]any{"text": []any{"x"}})
	require.NoError(t, f.b.Refresh(t.Context()))
	p := f.prompt(`{"1":{"class_type":"LoadImage","inputs":{"image":"in.png [input]"}},
		"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":18446744073709551615,"strength":1.0},"_meta":{"title":"in.png"}},
		"3":{"class_type":"PreviewImage","inputs":{"images":["2",0]}},
		"4":{"class_type":"Shows","inputs":{"source":{"__value__":["in.png"]},"list":["in.png",["in.png"],"other.png",7],"note":"see in.png","image":"in.png","deep":{"a":"in.png"}}},
		"in.png":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":1,"color":1}},
		"5":{"class_type":"PreviewImage","inputs":{"images":["in.png",0]}}}`)
	p.Inputs = []backend.Input{input("in.png", fakePNG(f))}
	p.ExtraPNGInfo = json.RawMessage(` {"workflow":{"seed":18446744073709551615}} `)
	out := f.succeeds(f.run(p, nil))
	at := out.Handle.Inputs[0]
	require.Equal(t, comfyui.InputPath(p.JobID, p.Inputs[0]), at)
	require.Contains(t, f.s.Files("input"), at)
	posted := f.s.Posted()
	id := `"` + p.ID + `"`
	tagged := `,"_comfyd":` + id
	quoted := `"` + at + `"`
	require.Equal(t, `{"prompt":{"1":{"class_type":"LoadImage","inputs":{"image":"`+at+` [input]"}},`+
		`"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":18446744073709551615,"strength":1.0},"_meta":{"title":"in.png"}},`+
		`"3":{"class_type":"PreviewImage","inputs":{"images":["2",0]`+tagged+`}},`+
		`"4":{"class_type":"Shows","inputs":{"source":{"__value__":[`+quoted+`]},"list":[`+quoted+`,[`+quoted+`],"other.png",7],"note":"see in.png","image":`+quoted+`,"deep":{"a":"in.png"}`+tagged+`}},`+
		`"in.png":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":1,"color":1}},`+
		`"5":{"class_type":"PreviewImage","inputs":{"images":["in.png",0]`+tagged+`}}},`+
		`"prompt_id":`+id+`,"client_id":`+id+`,"extra_data":{"extra_pnginfo":{"workflow":{"seed":18446744073709551615}}}}`,
		string(posted[len(posted)-1]))

	p.ExtraPNGInfo = json.RawMessage(`[1]`)
	errorOf(t, f.ends(f.run(p, nil)).err, comfy.InvalidWorkflow)
	p.ExtraPNGInfo, p.Fresh = json.RawMessage(`null`), true
	body, err := comfyui.Body(p, comfyui.NewPlan(p.Graph, nil), nil, false)
	require.NoError(t, err)
	require.Equal(t, 6, strings.Count(string(body), tagged), "every node has a new key")
	require.Contains(t, string(body), `"extra_data":{}`)
	for info, want := range map[string]string{`null`: `{"preview_method":"auto"}`, `{"a":1}`: `{"preview_method":"auto","extra_pnginfo":{"a":1}}`} {
		p.ExtraPNGInfo = json.RawMessage(info)
		body, err = comfyui.Body(p, comfyui.NewPlan(p.Graph, nil), nil, true)
		require.NoError(t, err)
		require.Contains(t, string(body), `"extra_data":`+want)
	}
}

func fakePNG(f *fixture) []byte {
	out := f.succeeds(f.run(f.prompt(solid(1)), nil))
	data, err := f.read(out, out.Files[0])
	require.NoError(f.T, err)
	return data
}

func TestUploadGoesWrong(t *testing.T) {
	load := `{"1":{"class_type":"LoadImage","inputs":{"image":"in.png"}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`
	for name, c := range map[string]struct {
		change func(f *fixture, in *backend.Input)
		code   comfy.Code
		says   string
	}{
		"too large": {func(_ *fixture, in *backend.Input) { *in = input("in.png", make([]byte, 101<<20)) }, comfy.InvalidWorkflow, "--max-upload-size"},
		"shorter":   {func(_ *fixture, in *backend.Input) { in.Size += 5 }, comfy.BackendUnavailable, "could not be sent"},
		"longer":    {func(_ *fixture, in *backend.Input) { in.Size -= 1 }, comfy.BackendUnavailable, "could not be sent"},
		"other":     {func(_ *fixture, in *backend.Input) { in.SHA256 = input("", nil).SHA256 }, comfy.Storage, "other bytes"},
		"gone":      {func(f *fixture, _ *backend.Input) { f.s.Stop(); f.b.http.CloseIdleConnections() }, comfy.BackendUnavailable, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, func(_ *Options, tm *timing) { tm.probe = time.Hour })
			p := f.prompt(load)
			in := input("in.png", []byte("0123456789"))
			c.change(f, &in)
			p.Inputs = []backend.Input{in}
			e := f.fails(f.run(p, nil), c.code)
			require.Contains(t, e.Error(), c.says)
			require.Empty(t, f.s.Posted())
		})
	}
}

// A job that was accepted before any catalogue was known meets the path rules here at the latest.
func TestReadyKeepsToTheJobsOwnFiles(t *testing.T) {
	f := setup(t, nil)
	for _, name := range []string{"../output/x.png", "/etc/passwd", "x.png [output]", "comfyd/another-job/x.png"} {
		g, err := comfy.ParseGraph(fmt.Appendf(nil, `{"1":{"class_type":"LoadImage","inputs":{"image":%q}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"x"}}}`, name))
		require.NoError(t, err)
		e := errorOf(t, f.b.Ready(t.Context(), &backend.Prompt{JobID: "job", ID: "id", Graph: g}), comfy.InvalidWorkflow)
		require.Contains(t, e.NodeErrors, "1", name)
	}
}
