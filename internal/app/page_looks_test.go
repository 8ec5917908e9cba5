package app_test

import (
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/browser"
)

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

// TestPageOnAPhone: nothing is wider than the window.
func TestPageOnAPhone(t *testing.T) {
	browser.Path(t)
	d := onDouble(t, nil)
	w := d.visit(browser.Options{Width: 375, Height: 812, Dark: true, Calm: true})
	fits := func(what string) {
		t.Helper()
		require.LessOrEqual(t, browser.Value[int](w, `document.documentElement.scrollWidth`), 375, what)
		wide := browser.Value[[]string](w, `[...document.querySelectorAll("main *, dialog *")].filter((e) => e.checkVisibility() && !e.closest(".unseen, pre, svg, [role=tablist]") && e.getBoundingClientRect().right > 376).map((e) => e.outerHTML.slice(0, 120))`)
		require.Empty(t, wide, what)
	}
	fits("the empty form")
	open(w, "walrus.json", []byte(walrus))
	w.Drop(".file-field", "a-photo-with-a-name-that-is-far-too-long-for-a-phone-and-has-no-place-to-break.png", "image/png", picture(t))
	w.See(".chooser", "Uploaded")
	browser.Value[bool](w, `(document.querySelectorAll("details").forEach((d) => (d.open = true)), true)`)
	w.See(".others", "strength")
	fits("the form")
	w.Click("button", "As code")
	fits("the code")
	w.Type(kb.Escape)
	w.Gone("dialog")
	w.Click("button", "Run")
	w.See(".badge", "completed")
	fits("the job")
	w.Wait(`document.querySelector(".job").getBoundingClientRect().top < document.querySelector(".composer").getBoundingClientRect().top`)
	w.Click(".look", "")
	fits("the closer look")
	w.Type(kb.Escape)
	w.Gone("dialog")
	w.Shot("page-phone")
	w.Click("nav a", "Jobs")
	w.See(".jobs", "completed")
	fits("the list")

	// Dark as the system is, light by choice, also after a reload; and nothing moves.
	background := `getComputedStyle(document.body).backgroundColor`
	dark := browser.Value[string](w, background)
	w.Click("button", "Colors: as the system")
	w.Wait(background + ` !== "` + dark + `"`)
	w.Reload()
	w.Wait(background + ` !== "` + dark + `"`)
	w.Click("button", "Colors: light")
	w.Wait(background + ` === "` + dark + `"`)
	require.Equal(t, "none", browser.Value[string](w, `(document.body.append(document.createElement("progress")), getComputedStyle(document.querySelector("progress")).animationName)`))
}

// TestPageAccessible has axe-core look at every state of the page, light and dark.
func TestPageAccessible(t *testing.T) {
	browser.Path(t)
	d := onDouble(t, nil)
	for _, dark := range []bool{false, true} {
		w := browser.Open(t, browser.Options{Dark: dark, Calm: true}) // a transition's colors are nobody's
		axe := func(what string) {
			t.Helper()
			if dark { // nothing else differs
				w.Axe(what, "color-contrast")
			} else {
				w.Axe(what)
			}
		}
		w.Go(d.url + "/")
		w.See("dialog h2", "API key")
		axe("the key")
		w.Type(d.key + kb.Enter)
		w.See(".drop", "Drop a ComfyUI workflow here")
		axe("the empty form")
		open(w, "walrus.json", []byte(walrus))
		w.Drop(".file-field", "me.png", "image/png", picture(t))
		w.See(".chooser", "Uploaded")
		browser.Value[bool](w, `(document.querySelectorAll("details").forEach((d) => (d.open = true)), true)`)
		w.See(".others", "strength")
		axe("the form")
		w.Click("button", "As code")
		axe("the code")
		w.Type(kb.Escape)
		gate := d.comfy.Hold("ImageAddNoise")
		w.Click(".field-body button", "")
		w.Click("button", "Run")
		gate.Reached()
		w.See(".step", "ImageAddNoise")
		browser.Value[bool](w, `(document.querySelectorAll("details").forEach((d) => (d.open = true)), true)`)
		axe("a job that runs")
		gate.Open()
		w.See(".badge", "completed")
		axe("a completed job")
		w.Click(".look", "")
		axe("the closer look")
		w.Type(kb.Escape)
		w.Gone("dialog")
		w.Click("button", "Delete")
		axe("a question")
		w.Type(kb.Escape)
		d.comfy.FailNode("ImageAddNoise", "ValueError", "no walrus here")
		w.Click("button", "Run again with another seed")
		w.See(".failure", "no walrus here")
		axe("a failed job")
		d.comfy.FailNode("ImageAddNoise", "", "")
		w.Click("nav a", "Jobs")
		w.See(".jobs", "failed")
		axe("the list")
	}
}
