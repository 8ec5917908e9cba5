package app_test

import (
	"context"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTemporalUI looks at an encrypted job in the real UI with a real browser.
func TestTemporalUI(t *testing.T) {
	browser := os.Getenv("COMFYD_TEST_CHROMIUM")
	if browser == "" {
		t.Skip("COMFYD_TEST_CHROMIUM is not set: make test installs Chromium and sets it")
	}
	d := onDouble(t, map[string]string{"COMFYD_PAYLOAD_KEYS": "a:" + keyA})
	d.comfy.FailNode("EmptyImage", "ValueError", "no walrus here")
	id := d.submit(titled(141, "A titled <b>job</b>"))
	d.finish(id)
	run, err := d.temporal().DescribeWorkflowExecution(t.Context(), id, "")
	require.NoError(t, err)
	ui := watch(t, d.app.TemporalUI)
	page := "/namespaces/default/workflows/" + id + "/" + run.GetWorkflowExecutionInfo().GetExecution().GetRunId()

	ui.shows(browser, page+"/timeline", "no walrus here", "node_failed", "Prompt • run on url, submission 1")
	ui.shows(browser, page+"/user-metadata", "`A titled <b>job</b>` · `SaveImage`", "**Tenant**: `alice`", d.url+"/jobs/"+id, "**failed**: `node_failed`: `node 1 (EmptyImage): ValueError: no walrus here`")
	ui.shows(browser, page+"/search-attributes", "ComfyErrorCode", "node_failed", "shot=12")
	for _, text := range ui.rendered() {
		res, err := http.Get(ui.URL + "/render?content=" + url.QueryEscape(text))
		require.NoError(t, err)
		raw, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		res.Body.Close()
		_, page, _ := strings.Cut(string(raw), "<main>")
		require.NotEmpty(t, page)
		require.NotContains(t, page, "<b>", "what a client writes is no markup")
	}
}

// watched is the Temporal UI under another address, behind which is noted what its pages have rendered as markdown: they
// show that in frames, which Chromium does not write down with a page.
type watched struct {
	*httptest.Server
	t *testing.T

	mu    sync.Mutex
	texts []string
}

func watch(t *testing.T, ui string) *watched {
	w := &watched{t: t}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: ui})
		r.Out.Host = r.In.Host
	}}
	w.Server = httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		if in.URL.Path == "/render" {
			w.mu.Lock()
			w.texts = append(w.texts, in.URL.Query().Get("content"))
			w.mu.Unlock()
		}
		proxy.ServeHTTP(out, in)
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *watched) rendered() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.texts...)
}

// shows opens a page until it has shown these texts.
func (w *watched) shows(browser, page string, texts ...string) {
	w.t.Helper()
	require.EventuallyWithT(w.t, func(c *assert.CollectT) {
		ctx, done := context.WithTimeout(context.Background(), time.Minute)
		defer done()
		dom, err := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--user-data-dir="+w.t.TempDir(), "--window-size=1400,3000", "--virtual-time-budget=10000", "--dump-dom", w.URL+page).Output()
		require.NoError(c, err)
		shown := html.UnescapeString(string(dom)) + strings.Join(w.rendered(), "\n")
		for _, text := range texts {
			assert.True(c, strings.Contains(shown, text), "%s does not show %s", page, text)
		}
	}, 3*time.Minute, time.Second)
}
