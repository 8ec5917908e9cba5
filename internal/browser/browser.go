// Package browser uses a web page in a real Chromium, for tests: as a person would, with mouse and keyboard. What a page
// complains about on the way (exceptions, errors in the console, violations of its policy) fails the test.
package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Patience is how long a page may take for what a test waits for: the machine may be busy.
const Patience = 90 * time.Second

// Path is the Chromium of the tests; without one the test is left out.
func Path(t testing.TB) string {
	t.Helper()
	path := os.Getenv("COMFYD_TEST_CHROMIUM")
	if path == "" {
		t.Skip("COMFYD_TEST_CHROMIUM is not set: make test installs Chromium and sets it")
	}
	return path
}

// Options of a window.
type Options struct {
	Width, Height int  // 0: 1280 × 860
	Dark          bool // prefers-color-scheme: dark
	Calm          bool // prefers-reduced-motion: reduce
}

// Window is a browser with one page and a profile of its own.
type Window struct {
	t         testing.TB
	ctx       context.Context
	downloads string

	mu         sync.Mutex
	complaints []string
}

// Open starts a browser; it ends with the test, which fails if a page has complained.
func Open(t testing.TB, o Options) *Window {
	t.Helper()
	if o.Width == 0 {
		o.Width, o.Height = 1280, 860
	}
	w := &Window{t: t, downloads: t.TempDir()}
	// The profile is not the test's own folder: a browser that ends still writes to it.
	profile, err := os.MkdirTemp("", "comfyd-browser-")
	require.NoError(t, err)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(Path(t)), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(o.Width, o.Height), chromedp.UserDataDir(profile),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-quic", true), chromedp.WSURLReadTimeout(Patience))...)
	ctx, end := chromedp.NewContext(ctx, chromedp.WithListener(w.listen))
	w.ctx = ctx
	t.Cleanup(func() {
		end()
		stop()
		if err := os.RemoveAll(profile); err != nil {
			t.Logf("the browser's profile: %v", err)
		}
		for _, c := range w.complaints {
			t.Errorf("the page complained: %s", c)
		}
	})
	features := []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: map[bool]string{true: "dark", false: "light"}[o.Dark]},
		{Name: "prefers-reduced-motion", Value: map[bool]string{true: "reduce", false: "no-preference"}[o.Calm]},
	}
	w.do(chromedp.EmulateViewport(int64(o.Width), int64(o.Height)))
	_, err = chromedp.Call(w.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
	require.NoError(t, err)
	_, err = chromedp.Call(w.ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: w.downloads,
	})
	require.NoError(t, err)
	return w
}

func (w *Window) listen(event any) {
	var text string
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text = e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type != "error" && e.Type != "warning" && e.Type != "assert" {
			return
		}
		for _, a := range e.Args {
			text += " " + string(a.Value) + a.Description
		}
	case *log.EventEntryAdded:
		if e.Entry.Level != log.EntryLevelError && e.Entry.Level != "warning" {
			return
		}
		if e.Entry.Source == "network" && strings.Contains(e.Entry.Text, "503") {
			return // a server that is busy says so, and a page is to go on
		}
		text = fmt.Sprintf("%s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL)
	default:
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.complaints = append(w.complaints, strings.TrimSpace(text))
}

// Pardon takes back the complaints that hold a text; there must be one. A browser itself notes each refused request.
func (w *Window) Pardon(text string) {
	w.t.Helper()
	w.eventually(func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		var rest []string
		for _, c := range w.complaints {
			if !strings.Contains(c, text) {
				rest = append(rest, c)
			}
		}
		pardoned := len(rest) < len(w.complaints)
		w.complaints = rest
		return pardoned
	}, "no complaint about %q", text)
}

func (w *Window) do(steps ...chromedp.Action[chromedp.Void]) {
	w.t.Helper()
	for _, step := range steps {
		_, err := chromedp.Run(w.ctx, func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
			ctx, done := context.WithTimeout(ctx, Patience)
			defer done()
			return step(ctx, target)
		})
		if err != nil {
			w.t.Fatalf("%v; the page shows:\n%s", err, w.text())
		}
	}
}

func (w *Window) text() string {
	text, err := chromedp.Run(w.ctx, chromedp.Evaluate[string](`document.body?.innerText ?? ""`))
	if err != nil {
		return err.Error()
	}
	return text
}

func (w *Window) eventually(f func() bool, format string, args ...any) {
	w.t.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(Patience); !f(); <-look.C {
		if time.Now().After(end) {
			w.t.Fatalf(format+"; the page shows:\n%s", append(args, w.text())...)
		}
	}
}

// Go opens an address.
func (w *Window) Go(url string) {
	w.t.Helper()
	w.do(chromedp.Navigate(url))
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

// Shot writes a picture of the window, where COMFYD_TEST_SHOTS names a folder.
func (w *Window) Shot(name string) {
	w.t.Helper()
	dir := os.Getenv("COMFYD_TEST_SHOTS")
	if dir == "" {
		return
	}
	raw, err := chromedp.Run(w.ctx, chromedp.CaptureScreenshot())
	require.NoError(w.t, err)
	require.NoError(w.t, os.WriteFile(filepath.Join(dir, name+".png"), raw, 0o644))
}

// Axe checks the page with axe-core, by these of its rules or else by all (WCAG 2.2 A and AA, best practices), and fails the
// test for what it finds.
func (w *Window) Axe(where string, rules ...string) {
	w.t.Helper()
	path := os.Getenv("COMFYD_TEST_AXE")
	if path == "" {
		w.t.Skip("COMFYD_TEST_AXE is not set: make test fetches axe-core and sets it")
	}
	source, err := os.ReadFile(path)
	require.NoError(w.t, err)
	_, err = chromedp.Run(w.ctx, chromedp.Evaluate[bool](string(source)+"\n;true"))
	require.NoError(w.t, err)
	only, err := json.Marshal(map[string]any{"runOnly": rules})
	require.NoError(w.t, err)
	if len(rules) == 0 {
		only = []byte("{}")
	}
	found := Value[[]string](w, `axe.run(`+string(only)+`).then((r) => r.violations.map((v) => v.impact + " " + v.id + ": " + v.help + " | " + v.nodes.map((n) => n.html + " " + n.failureSummary).join(" | ")))`)
	require.Empty(w.t, found, where)
}

func quote(text string) string {
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err) // no string is beyond JSON
	}
	return string(raw)
}
