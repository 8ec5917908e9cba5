package app_test

import (
	"archive/zip"
	"bytes"
	"image"
	"image/png"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/browser"
)

// walrus is a workflow with a prompt, a seed that JavaScript's numbers cannot hold, an input file, and a title that must
// stay text.
const walrus = `{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":48,"batch_size":1,"color":255},"_meta":{"title":"Ground"}},
	"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":11258999068426240071,"strength":0.50},"_meta":{"title":"<img src=x onerror=alert(1)>"}},
	"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"noise"}},
	"4":{"class_type":"StringConcatenate","inputs":{"string_a":"a walrus","string_b":"at sea","delimiter":" "},"_meta":{"title":"Prompt"}},
	"5":{"class_type":"PreviewAny","inputs":{"source":["4",0]}},
	"6":{"class_type":"LoadImage","inputs":{"image":"photo.png"},"_meta":{"title":"Photo"}},
	"7":{"class_type":"SaveImage","inputs":{"images":["6",0],"filename_prefix":"photo"}}}`

// visit opens the page in a browser of its own and gives it the key.
func (a *api) visit(o browser.Options) *browser.Window {
	a.t.Helper()
	w := browser.Open(a.t, o)
	w.Go(a.url + "/")
	w.See("dialog h2", "API key")
	w.Type(a.key + kb.Enter) // the field has the focus
	w.See(".drop", "Drop a ComfyUI workflow here")
	return w
}

// open drops a workflow on the page.
func open(w *browser.Window, name string, workflow []byte) {
	w.Drop(".composer", name, "application/json", workflow)
	w.See(".composer h1", name)
}

// jobOf is the ID of the job that the page shows.
func jobOf(w *browser.Window) string {
	return browser.Value[string](w, `decodeURIComponent(location.hash.replace("#/jobs/", ""))`)
}

func picture(t *testing.T) []byte {
	var buf bytes.Buffer
	require.NoError(t, png.Encode(&buf, image.NewGray(image.Rect(0, 0, 40, 30))))
	return buf.Bytes()
}

// TestPage is a whole first use in a real browser.
func TestPage(t *testing.T) {
	browser.Path(t)
	d := onDouble(t, nil)
	w := browser.Open(t, browser.Options{})
	w.Go(d.url + "/")
	w.See("dialog", "api-key") // where the key lies that was made
	w.Type("not-the-right-one" + kb.Enter)
	w.See("dialog .problem", "does not know this key")
	w.Pardon("401")
	w.Fill("dialog input[type=password]", d.key)
	w.Type(kb.Enter)
	w.See(".drop", "Drop a ComfyUI workflow here")

	w.Drop(".drop", "wrong.json", "application/json", []byte(`{"a": 1}`))
	w.See(".refusal", "no entry has a class_type")
	open(w, "walrus.json", []byte(walrus))
	w.See(".composer", "Not uploaded")
	w.Drop(".file-field", "me.png", "image/png", picture(t))
	w.See(".chooser", "Uploaded")
	w.Fill("textarea", "two walruses")
	require.Equal(t, "11258999068426240071", browser.Value[string](w, `document.querySelector("input.number").value`))
	w.Click("summary", "Options")
	w.Fill(".options input", "A walrus")

	gate := d.comfy.Hold("ImageAddNoise")
	w.Click("button", "Run")
	gate.Reached()
	w.See(".job-title", "A walrus")
	w.See(".step", "<img src=x onerror=alert(1)> (ImageAddNoise)")
	w.Click("summary", "Nodes 7")
	w.See(`[data-state="current"]`, "<img src=x")
	w.See(`[data-state="done"]`, "Ground")
	posted := string(d.comfy.Posted()[0])
	for _, part := range []string{"11258999068426240071", "0.50", "two walruses"} {
		require.Contains(t, posted, part)
	}
	gate.Open()
	w.See(".badge", "completed")
	w.See(".said", "two walruses at sea")
	first := jobOf(w)

	// The gallery, a closer look with keys, and the focus back where it was.
	w.Wait(`[...document.querySelectorAll(".look img")].filter((i) => i.complete && i.naturalWidth > 0).length === 2`)
	w.Click(".look", "Look at noise_00001_.png")
	w.See("dialog.zoom h2", "noise_00001_.png")
	w.Type(kb.ArrowRight)
	w.See("dialog.zoom h2", "photo_00001_.png")
	w.Type(kb.ArrowRight)
	w.See("dialog.zoom h2", "noise_00001_.png")
	w.Type(kb.Escape)
	w.Gone("dialog")
	w.Wait(`document.activeElement.ariaLabel === "Look at noise_00001_.png"`)

	w.Click("figure a", "Download noise_00001_.png")
	_, err := png.Decode(bytes.NewReader(w.Downloaded("noise_00001_.png")))
	require.NoError(t, err)
	w.Click("a.button", browser.Value[string](w, `[...document.querySelectorAll(".actions a")].map((a) => a.textContent)[0]`))
	raw := w.Downloaded("comfyd-" + first + ".zip")
	z, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	require.NoError(t, err)
	require.Len(t, z.File, 3)
	require.Equal(t, "http://"+d.app.TemporalUI+"/namespaces/default/workflows/"+first, browser.Value[string](w, `[...document.querySelectorAll("a")].find((a) => a.textContent === "Temporal").href`))

	w.Click("button", "Run again with another seed")
	w.Wait(`location.hash !== "#/jobs/` + first + `"`)
	second := jobOf(w)
	d.finish(second)
	w.See(".badge", "completed")
	require.NotContains(t, string(d.comfy.Posted()[1]), "11258999068426240071")
	require.Contains(t, string(d.comfy.Posted()[1]), "two walruses")

	// The list, its search, and both addresses of a job, each with the workflow that this browser has sent.
	w.Click("nav a", "Jobs")
	w.Wait(`document.querySelectorAll(".jobs li").length === 2`)
	w.Fill("[type=search]", "no such words")
	w.See(".empty", "No job is like that")
	w.Fill("[type=search]", "WALRUSES two")
	w.Wait(`document.querySelectorAll(".jobs li").length === 2`)
	w.Fill("[type=search]", "title=A walrus")
	w.Wait(`document.querySelectorAll(".jobs li").length === 2`)
	w.Fill("[type=search]", second+kb.Enter)
	w.See(".job .id", second[:8])
	w.Go(d.url + "/jobs/" + first)
	w.See(".job .id", first[:8])
	w.Wait(`location.pathname === "/"`)
	require.Equal(t, "11258999068426240071", browser.Value[string](w, `document.querySelector("input.number").value`))
	w.Reload()
	w.See(".job .id", first[:8])
	w.See(".badge", "completed")

	w.Click("button", "Delete")
	w.Click("dialog button", "Delete")
	w.Wait(`document.querySelectorAll(".jobs li").length === 1`)
	require.Equal(t, 404, d.do("GET", "/status/"+first, nil).code)

	// Forgetting the key forgets the workflows, too.
	w.Click("button", "API key")
	w.Click("button", "Forget the key")
	w.See("dialog", "This server wants an API key")
	w.Type(d.key + kb.Enter)
	w.See(".drop", "Drop a ComfyUI workflow here")
	w.GoWithin("#/jobs/" + second)
	w.See(".composer", "does not know the workflow")
}

// tabTo presses Tab until the element with the focus fits.
func tabTo(t *testing.T, w *browser.Window, fits string) {
	t.Helper()
	for range 80 {
		w.Type(kb.Tab)
		if browser.Value[bool](w, `Boolean(((e) => `+fits+`)(document.activeElement))`) {
			require.NotEqual(t, "none", browser.Value[string](w, `getComputedStyle(document.activeElement).outlineStyle`), "the focus is seen: %s", fits)
			return
		}
	}
	t.Fatalf("80 steps with Tab lead nowhere: %s", fits)
}

// TestPageByKeyboard is a first use without a mouse, on a real ComfyUI, in another browser's job list at the end.
func TestPageByKeyboard(t *testing.T) {
	browser.Path(t)
	a := start(t, map[string]string{"COMFYUI_URLS": comfyURL(t)})
	w := browser.Open(t, browser.Options{})
	w.Go(a.url + "/")
	w.See("dialog h2", "API key")
	w.Shot("page-key")
	w.Type(a.key + kb.Enter)
	w.See(".drop", "Drop a ComfyUI workflow here")
	w.Shot("page-new")
	w.Type(kb.Tab)
	w.Wait(`document.activeElement.id === "skip" && document.activeElement.getBoundingClientRect().top >= 0`)
	tabTo(t, w, `e.textContent === "Try an example"`)
	w.Type(kb.Enter)
	w.Wait(`document.activeElement.textContent === "Run"`)
	w.Type(kb.Enter)
	w.See(".badge", "completed")
	w.Wait(`[...document.querySelectorAll(".look img")].filter((i) => i.naturalWidth === 512).length === 2`)
	w.Shot("page-completed")
	first := jobOf(w)
	tabTo(t, w, `e.className === "look"`)
	w.Type(kb.Enter)
	w.See("dialog.zoom h2", "clouds")
	w.Type(kb.ArrowLeft)
	w.See("dialog.zoom h2", "embers")
	w.Type("z")
	w.Wait(`document.querySelector(".stage.real")`)
	w.Type(kb.Escape)
	w.Gone("dialog")
	tabTo(t, w, `e.textContent === "Run again with another seed"`)
	w.Type(kb.Enter)
	w.Wait(`location.hash !== "#/jobs/` + first + `" && document.querySelector(".badge")?.textContent === "completed"`)
	tabTo(t, w, `e.textContent === "Jobs"`)
	w.Type(kb.Enter)
	w.Wait(`document.querySelectorAll(".jobs li").length === 2`)
	w.Shot("page-jobs")
	tabTo(t, w, `e.closest(".jobs")`)
	w.Type(kb.Enter)
	w.See(".badge", "completed")

	// A browser that has not sent the job reads its workflow from the picture, where ComfyUI has written it.
	w = a.visit(browser.Options{Dark: true})
	w.Go(a.url + "/jobs/" + first)
	w.See(".composer h1", "clouds")
	w.Wait(`document.querySelector("input.number").value === "1125899906842624007"`)
	w.See(".others summary", "Other inputs 9") // and nothing of comfyd's own
	w.See("button", "Run again with another seed")
	w.Shot("page-dark")
}
