package api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/browser"
)

// TestPageOnAPhone: nothing is wider than the window.
func TestPageOnAPhone(t *testing.T) {
	h, w := pageHarness(t, browser.Options{Width: 375, Height: 812, Dark: true, Calm: true})
	fits := func(what string) {
		t.Helper()
		require.LessOrEqual(t, browser.Value[int](w, `document.documentElement.scrollWidth`), 375, what)
		wide := browser.Value[[]string](w, `[...document.querySelectorAll("main *, dialog *")].filter((e) => e.checkVisibility() && !e.closest(".unseen, pre, svg") &&
			e.getBoundingClientRect().right > 376).map((e) => e.outerHTML.slice(0, 120))`)
		require.Empty(t, wide, what)
	}
	fits("the key")
	enter(w)
	fits("the empty form")
	open(w, "a-workflow-"+strings.Repeat("with-a-long-name-", 8)+".json", walrus)
	w.Drop(".file-field", strings.Repeat("a-photo-with-no-place-to-break", 3)+".png", "image/png", sea(t, 20))
	w.See(".chooser", "Uploaded")
	unfold(w)
	w.See(".others", "scheduler")
	fits("the form")
	w.Click("button", "As code")
	fits("the code")
	w.Type(kb.Escape)
	w.Gone("dialog")
	w.Click("button", "Run")
	run := h.run(w)
	unfold(w)
	fits("a job that runs")
	h.complete(run, sea(t, 30), sea(t, 90), sea(t, 150))
	w.See(".badge", "completed")
	fits("a completed job")
	w.Wait(`document.querySelector(".job").getBoundingClientRect().top < document.querySelector(".composer").getBoundingClientRect().top`)
	w.Wait(`[...document.querySelectorAll(".look img")].every((i) => i.naturalWidth > 0)`)
	browser.Value[bool](w, `(scrollTo(0, 0), true)`)
	w.Shot("page-phone")
	w.Click(".look", "")
	fits("the closer look")
	w.Type(kb.Escape)
	w.Gone("dialog")
	w.Click("nav a", "Jobs")
	w.See(".jobs", "completed")
	fits("the list")

	// Dark as the system is, light by choice, also after a reload; and nothing moves.
	background := `getComputedStyle(document.body).backgroundColor`
	dark := browser.Value[string](w, background)
	w.Click("button", "Colors: as the system")
	w.Wait(fmt.Sprintf("%s !== %q", background, dark))
	w.Reload()
	w.Wait(fmt.Sprintf("document.body && %s !== %q", background, dark))
	w.Click("button", "Colors: light")
	w.Wait(fmt.Sprintf("%s === %q", background, dark))
	require.Equal(t, "none", browser.Value[string](w, `(document.body.append(document.createElement("progress")), getComputedStyle(document.querySelector("progress")).animationName)`))
}

// TestPageAccessible has axe-core look at every state of the page, light and dark.
func TestPageAccessible(t *testing.T) {
	for _, dark := range []bool{false, true} {
		h, w := pageHarness(t, browser.Options{Dark: dark, Calm: true}) // a transition's colors are nobody's
		axe := func(what string) {
			t.Helper()
			if dark { // nothing else differs
				w.Axe(what, "color-contrast")
			} else {
				w.Axe(what)
			}
		}
		axe("the key")
		enter(w)
		axe("the empty form")
		open(w, "walrus.json", walrus)
		w.Drop(".file-field", "me.png", "image/png", sea(t, 20))
		w.See(".chooser", "Uploaded")
		unfold(w)
		w.See(".others", "scheduler")
		axe("the form")
		w.Click("button", "As code")
		axe("the code")
		w.Type(kb.Escape)
		h.catalogs.refuse.Store(&comfy.Failure{Code: comfy.InvalidWorkflow, Message: "No.", NodeErrors: comfy.NodeErrors{"6": {Errors: []comfy.InputError{{Message: "Too small", ExtraInfo: map[string]any{"input_name": "cfg"}}}}}})
		w.Click("button", "Run")
		w.See(".refusal", "Too small")
		w.Pardon("400")
		axe("a refusal")
		h.catalogs.refuse.Store(nil)
		w.Click("button", "Run")
		run := h.run(w)
		unfold(w)
		axe("a job that runs")
		h.complete(run, sea(t, 30), sea(t, 90))
		w.See(".badge", "completed")
		axe("a completed job")
		w.Click(".look", "")
		axe("the closer look")
		w.Type(kb.Escape)
		w.Gone("dialog")
		w.Click("button", "Delete")
		axe("a question")
		w.Type(kb.Escape)
		w.Gone("dialog")
		w.Click("button", "Run again with another seed")
		h.failAt(h.run(w), "6", "CUDA error")
		w.See(".failure", "CUDA error")
		axe("a failed job")
		w.Click("nav a", "Jobs")
		w.See(".jobs", "failed")
		axe("the list")
	}
}
