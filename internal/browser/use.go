package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Go opens an address.
func (w *Window) Go(url string) {
	w.t.Helper()
	w.do(chromedp.Navigate(url))
}

// GoWithin opens another place of the page that is open, such as "#/jobs".
func (w *Window) GoWithin(hash string) {
	w.t.Helper()
	Value[string](w, `location.hash = `+quote(hash))
}

// Reload loads the page anew.
func (w *Window) Reload() {
	w.t.Helper()
	w.do(chromedp.Reload())
}

// Value evaluates JavaScript; promises are awaited.
func Value[T any](w *Window, js string) T {
	w.t.Helper()
	v, err := chromedp.Run(w.ctx, chromedp.Evaluate[T](js, chromedp.EvalAwaitPromise))
	require.NoError(w.t, err, js)
	return v
}

// Wait waits until a JavaScript expression is true.
func (w *Window) Wait(js string) {
	w.t.Helper()
	w.eventually(func() bool {
		v, err := chromedp.Run(w.ctx, chromedp.Evaluate[bool](`Boolean(`+js+`)`, chromedp.EvalAwaitPromise))
		return err == nil && v
	}, "never true: %s", js)
}

// See waits until a visible element of the selector holds the text.
func (w *Window) See(selector, text string) {
	w.t.Helper()
	w.Wait(fmt.Sprintf(`[...document.querySelectorAll(%s)].some((e) => e.checkVisibility() && e.textContent.includes(%s))`, quote(selector), quote(text)))
}

// Gone waits until no visible element fits the selector.
func (w *Window) Gone(selector string) {
	w.t.Helper()
	w.Wait(fmt.Sprintf(`![...document.querySelectorAll(%s)].some((e) => e.checkVisibility())`, quote(selector)))
}

// Click clicks the first visible element of the selector whose text or label is this; an empty one is any.
func (w *Window) Click(selector, text string) {
	w.t.Helper()
	w.Wait(fmt.Sprintf(`(() => {
		for (const e of document.querySelectorAll("[data-clicked]")) delete e.dataset.clicked;
		const found = [...document.querySelectorAll(%s)].find((e) => e.checkVisibility() && !e.disabled &&
			(%[2]s === "" || e.textContent.trim() === %[2]s || e.ariaLabel === %[2]s));
		found?.scrollIntoView({ block: "center" }); // from below what sticks to the window's edge
		if (found) found.dataset.clicked = "";
		return found;
	})()`, quote(selector), quote(text)))
	w.do(chromedp.Click(chromedp.CSS("[data-clicked]")))
}

// Fill replaces what an input holds, by typing.
func (w *Window) Fill(selector, text string) {
	w.t.Helper()
	w.Click(selector, "")
	Value[bool](w, fmt.Sprintf(`(document.querySelector(%s).select(), true)`, quote(selector)))
	w.Type(text)
}

// Type types into what has the focus; the constants of chromedp's package kb are keys without a character.
func (w *Window) Type(keys string) {
	w.t.Helper()
	w.do(chromedp.KeyEvent(keys))
}

// Choose puts files into an input.
func (w *Window) Choose(selector string, files ...string) {
	w.t.Helper()
	w.do(chromedp.SetUploadFiles(chromedp.CSS(selector), files, chromedp.NodeReady))
}

// Drop drops a file on an element.
func (w *Window) Drop(selector, name, contentType string, data []byte) {
	w.t.Helper()
	list, err := json.Marshal(data) // base64
	require.NoError(w.t, err)
	Value[bool](w, fmt.Sprintf(`(() => {
		const transfer = new DataTransfer();
		transfer.items.add(new File([Uint8Array.from(atob(%s), (c) => c.charCodeAt(0))], %s, { type: %s }));
		for (const kind of ["dragover", "drop"]) {
			document.querySelector(%s).dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
		}
		return true;
	})()`, list, quote(name), quote(contentType), quote(selector)))
}

// Downloaded waits for a file that the browser has saved, and reads it.
func (w *Window) Downloaded(pattern string) []byte {
	w.t.Helper()
	var found []string
	w.eventually(func() bool {
		var err error
		found, err = filepath.Glob(filepath.Join(w.downloads, pattern))
		require.NoError(w.t, err)
		return len(found) > 0
	}, "no download %s", pattern)
	raw, err := os.ReadFile(found[0])
	require.NoError(w.t, err)
	return raw
}

func quote(text string) string {
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err) // no string is beyond JSON
	}
	return string(raw)
}
