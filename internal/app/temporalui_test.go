package app_test

import (
	"context"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTemporalUI looks at jobs in the real UI with a real browser.
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
	page := "http://" + d.app.TemporalUI + "/namespaces/default/workflows/" + id + "/" + run.GetWorkflowExecutionInfo().GetExecution().GetRunId()

	d.see(browser, page+"/timeline", "no walrus here", "node_failed", "run on url, submission 1")
	seen := d.see(browser, page+"/user-metadata", "`A titled <b>job</b>` · `SaveImage`", "**Tenant**: `alice`", d.url+"/jobs/"+id, "**failed**: `node_failed`: `node 1 (EmptyImage): ValueError: no walrus here`")
	for _, frame := range frames(seen) {
		res, err := http.Get("http://" + d.app.TemporalUI + frame)
		require.NoError(t, err)
		raw, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		res.Body.Close()
		main := string(raw)[strings.Index(string(raw), "<main>"):]
		require.NotContains(t, main, "<b>", "what a client writes is no markup: %s", main)
	}
	d.see(browser, page+"/search-attributes", "ComfyErrorCode", "node_failed", "shot=12")
}

var frameAddress = regexp.MustCompile(`src="(/render\?[^"]*)"`)

// frames are the addresses under which the UI has markdown rendered.
func frames(dom string) (all []string) {
	for _, m := range frameAddress.FindAllStringSubmatch(dom, -1) {
		all = append(all, html.UnescapeString(m[1]))
	}
	return all
}

// see opens a page until it shows these texts, and returns it.
func (d *double) see(browser, page string, texts ...string) (dom string) {
	d.t.Helper()
	require.EventuallyWithT(d.t, func(c *assert.CollectT) {
		ctx, done := context.WithTimeout(context.Background(), time.Minute)
		defer done()
		cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--user-data-dir="+d.t.TempDir(), "--window-size=1400,3000", "--virtual-time-budget=10000", "--dump-dom", page)
		raw, err := cmd.Output()
		require.NoError(c, err)
		dom = string(raw)
		shown := html.UnescapeString(dom)
		for _, f := range frames(dom) {
			u, err := url.Parse(f)
			require.NoError(c, err)
			shown += "\n" + u.Query().Get("content")
		}
		for _, text := range texts {
			assert.True(c, strings.Contains(shown, text), "%s does not show %s", page, text)
		}
	}, 3*time.Minute, time.Second)
	return dom
}
