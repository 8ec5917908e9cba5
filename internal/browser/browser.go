// Package browser uses a web page in a real Chromium, for tests: as a person would, with mouse and keyboard. What a page
// complains about on the way (exceptions, errors in the console, violations of its policy) fails the test.
package browser

import (
	"context"
	"fmt"
	"os"
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
