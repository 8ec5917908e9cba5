package api

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/browser"
	"github.com/comfyd/comfyd/internal/visibility"
)

// walrus is a workflow with every kind of field, a seed that JavaScript's numbers cannot hold, and a title that must stay
// text.
const walrus = `{"1":{"class_type":"CheckpointLoaderSimple","inputs":{"ckpt_name":"sd.safetensors"},"_meta":{"title":"Model"}},
	"2":{"class_type":"CLIPTextEncode","inputs":{"clip":["1",1],"text":"a walrus at sea"},"_meta":{"title":"<img src=x onerror=alert(1)>"}},
	"3":{"class_type":"CLIPTextEncode","inputs":{"clip":["1",1],"text":"blurry"},"_meta":{"title":"Not this"}},
	"4":{"class_type":"LoadImage","inputs":{"image":"photo.png"},"_meta":{"title":"Photo"}},
	"5":{"class_type":"VAEEncode","inputs":{"pixels":["4",0],"vae":["1",2]}},
	"6":{"class_type":"KSampler","inputs":{"model":["1",0],"positive":["2",0],"negative":["3",0],"latent_image":["5",0],"seed":11258999068426240071,
		"steps":20,"cfg":7.0,"sampler_name":"euler","scheduler":"normal","denoise":0.60,"tiled":true,"extra":{"a":[1.0]}},"_meta":{"title":"Sampler"}},
	"7":{"class_type":"VAEDecode","inputs":{"samples":["6",0],"vae":["1",2]}},"8":{"class_type":"SaveImage","inputs":{"images":["7",0],"filename_prefix":"walrus"}}}`

// pageHarness is a server whose list names what it has, opened in a browser with the key of tenant a.
func pageHarness(t *testing.T, o browser.Options) (*harness, *browser.Window) {
	browser.Path(t)
	h := newHarness(t)
	h.temporal.lists = func(*workflowservice.ListWorkflowExecutionsRequest) *workflowservice.ListWorkflowExecutionsResponse {
		var all []*workflowpb.WorkflowExecutionInfo
		for _, run := range h.temporal.runs {
			all = append(all, run.info)
		}
		slices.SortFunc(all, func(a, b *workflowpb.WorkflowExecutionInfo) int {
			return b.StartTime.AsTime().Compare(a.StartTime.AsTime())
		})
		return &workflowservice.ListWorkflowExecutionsResponse{Executions: all}
	}
	w := browser.Open(t, o)
	w.Go("http://" + h.addr + "/")
	w.See("dialog h2", "API key")
	return h, w
}

func enter(w *browser.Window) {
	w.Type(keyA + kb.Enter) // the field has the focus
	w.See(".drop", "Drop a ComfyUI workflow here")
}

func open(w *browser.Window, name, workflow string) {
	w.Drop(".composer", name, "application/json", []byte(workflow))
	w.See(".composer h1", name)
}

func unfold(w *browser.Window) {
	browser.Value[bool](w, `(document.querySelectorAll("details").forEach((d) => (d.open = true)), true)`)
}

// shown is the open job that the page shows.
func (h *harness) shown(w *browser.Window) (run *fakeRun) {
	h.t.Helper()
	require.Eventually(h.t, func() bool {
		var err error
		run, err = h.temporal.get(browser.Value[string](w, `location.hash.replace("#/jobs/", "")`))
		return err == nil && visibility.IsOpen(run.info.Status)
	}, browser.Patience, 50*time.Millisecond, "the page shows no open job")
	return run
}

// sea is a picture of one.
func sea(t *testing.T, tint uint8) []byte {
	img := image.NewRGBA(image.Rect(0, 0, 96, 64))
	for y := range 64 {
		for x := range 96 {
			img.Set(x, y, color.RGBA{tint, uint8(90 + y + x%7), uint8(140 + y), 255})
		}
	}
	var buf bytes.Buffer
	require.NoError(t, png.Encode(&buf, img))
	return buf.Bytes()
}

// run lets the job that the page shows be at its fifth step of twenty.
func (h *harness) run(w *browser.Window) *fakeRun {
	h.t.Helper()
	run := h.shown(w)
	h.change(run, func() {
		run.own = &comfy.Status{State: comfy.Running, Phase: comfy.PhaseRunning, Attempts: 1, Backend: "url", Progress: &comfy.Progress{
			Value: 0.4, NodesDone: 5, NodesTotal: 8, CurrentNode: "6", Step: 5, Steps: 20}}
	})
	w.See(".step", "Sampler (KSampler) · step 5 of 20 · 5 of 8 nodes done")
	return run
}

func (h *harness) failAt(run *fakeRun, node, message string) {
	h.t.Helper()
	f := comfy.Failure{Code: comfy.NodeFailed, Message: message, NodeID: node, Attempts: 1, Backend: "url"}
	run.failure = endError(h.t, temporal.NewNonRetryableApplicationError(message, string(f.Code), nil, f))
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_FAILED)
}

// TestPageOfFailures: refusals and failures stand at the node that is to blame, and what users and nodes say stays text.
func TestPageOfFailures(t *testing.T) {
	h, w := pageHarness(t, browser.Options{})
	enter(w)
	w.Drop(".drop", "wrong.json", "application/json", []byte(`{"a": 1}`))
	w.See(".refusal", "no entry has a class_type")
	open(w, "walrus.json", walrus)
	w.See(".composer", "Not uploaded")
	w.Drop(".file-field", "photo.png", "image/png", sea(t, 20))
	w.See(".chooser", "Uploaded")
	w.See(".role.positive", "positive")
	w.See(".role.negative", "negative")

	h.catalogs.refuse.Store(&comfy.Failure{Code: comfy.InvalidWorkflow, Message: "The model is not there.", NodeErrors: comfy.NodeErrors{"1": {ClassType: "CheckpointLoaderSimple",
		Errors: []comfy.InputError{{Type: "value_not_in_list", Message: "Value not in list", Details: "sd.safetensors", ExtraInfo: map[string]any{"input_name": "ckpt_name", "nearest": "sd15.safetensors"}}}}}})
	w.Click("button", "Run")
	w.See(".refusal", "The model is not there.")
	w.See(".refusal", "Did you mean sd15.safetensors?")
	w.Pardon("400")
	w.Click(".refusal button", "Model")
	w.Wait(`document.activeElement.ariaInvalid === "true" && document.activeElement.value === "sd.safetensors"`)
	h.catalogs.refuse.Store(nil)
	w.Fill("input.number", "ten")
	w.Click("button", "Run")
	w.Wait(`document.activeElement.validationMessage.includes("number")`)
	w.Fill("input.number", "18446744073709551615")
	w.Click("button", "Run")

	run := h.run(w)
	require.Contains(t, string(run.request.Workflow), `"seed":18446744073709551615`)
	require.Contains(t, string(run.request.Workflow), `"denoise":0.60`)
	require.Contains(t, string(run.request.Workflow), `"extra":{"a":[1.0]}`)
	require.Equal(t, "photo.png", run.request.Images[0].Name)
	h.failAt(run, "2", "ValueError: no walrus here <b>")
	w.See(".failure", "no walrus here <b>")
	w.See(".failure", "Look at the inputs of the node that is marked")
	w.See(`.nodes [data-state="failed"]`, "<img src=x onerror=alert(1)>")
	w.See(".failure h3", "A node failed: <img src=x onerror=alert(1)> (CLIPTextEncode)")
	w.Shot("page-failed")
	w.Click(`.nodes [data-state="failed"] button`, "")
	w.Wait(`document.activeElement.value === "a walrus at sea"`)

	// One that runs, canceled.
	w.Click("button", "Run again with another seed")
	run = h.run(w)
	require.NotContains(t, string(run.request.Workflow), "18446744073709551615")
	w.Wait(`document.title.startsWith("40 %")`)
	w.Click("button", "Cancel")
	w.See(".phase", "Canceling")
	run.failure = endError(t, temporal.NewCanceledError())
	h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_CANCELED)
	w.See(".badge", "canceled")

	open(w, "ui.json", `{"nodes":[{"id":3,"type":"LoadImage","widgets_values":["photo.png","image"]}],"links":[]}`)
	w.See(".composer", "the editor's own format")
	w.See(".file-field", "photo.png")
	w.GoWithin("#/jobs/no-such-job")
	w.See(".failure", "There is no such job")
	w.Pardon("404")
}

// TestPageAsCode: what the page writes is what it sends, in every language, whatever is in it.
func TestPageAsCode(t *testing.T) {
	h, w := pageHarness(t, browser.Options{})
	enter(w)
	text := "`${x}` 'JSON' \"\"\" \\\nJSON\n"
	quoted, err := json.Marshal(text)
	require.NoError(t, err)
	open(w, "odd.json", strings.Replace(walrus, `"a walrus at sea"`, string(quoted), 1))
	w.Click("button", "As code")
	for _, language := range []string{"curl", "Python", "JavaScript", "Go"} {
		w.Click("[role=tab]", language)
		code := browser.Value[string](w, `document.querySelector("#code-panel").textContent`)
		require.Contains(t, code, "COMFYD_API_KEY")
		require.NotContains(t, code, keyA)
		require.Contains(t, code, "http://"+h.addr)
		_, body, found := strings.Cut(code, "\n{\n  \"workflow\"")
		require.True(t, found, code)
		body, rest, found := strings.Cut(body, "\n}\n")
		require.True(t, found, code)
		require.Contains(t, map[string]string{"curl": "JSON\n)", "Python": `"""`, "JavaScript": "`;", "Go": "`\n\nfunc"}[language], strings.TrimSpace(rest)[:2], "the text ends where its quotes do")
		var sent struct {
			Workflow map[string]struct{ Inputs map[string]json.RawMessage }
		}
		require.NoError(t, json.Unmarshal([]byte("{\"workflow\""+body+"}"), &sent), "%s: %s", language, body)
		var got string
		require.NoError(t, json.Unmarshal(sent.Workflow["2"].Inputs["text"], &got))
		require.Equal(t, text, got, language)
		require.Equal(t, "11258999068426240071", string(sent.Workflow["6"].Inputs["seed"]))
		require.Equal(t, "0.60", string(sent.Workflow["6"].Inputs["denoise"]))
		if language == "JavaScript" || language == "Go" { // raw strings end at a backtick
			require.NotContains(t, body, "`")
		}
	}
	w.Click("button", "Copy")
	w.See("#live", "Copied.") // the button says it, too, but for a moment only
	w.Type(kb.Escape)
	w.Gone("dialog")
}
