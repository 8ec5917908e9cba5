package browser

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

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
