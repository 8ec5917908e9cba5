package api

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const asBrowser = "text/html,application/xhtml+xml,*/*;q=0.8"

func TestPage(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.KeyFile = `data/"api-key"` })
	for path, root := range map[string]string{"/": "./", "/jobs/some%2Fid": "./../", "/jobs/x/": "./../../"} {
		a := h.do("GET", path, "", "Accept", asBrowser, "Authorization", "")
		require.Equal(t, 200, a.status, path)
		require.Equal(t, "text/html; charset=utf-8", a.header.Get("Content-Type"))
		require.Equal(t, "no-cache", a.header.Get("Cache-Control"), "a new version shows at once")
		require.Equal(t, "Accept, Authorization", a.header.Get("Vary"))
		require.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
		policy := a.header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
			require.Contains(t, policy, part)
		}
		require.NotContains(t, policy, "unsafe")
		require.Contains(t, string(a.raw), `content="data/&#34;api-key&#34;"`, "escaped")
		require.Contains(t, string(a.raw), `src="`+root+`web/`)
		require.NotRegexp(t, `<script>|<style| style=| on[a-z]+=|https?://`, string(a.raw), "nothing inline, nothing from elsewhere")
	}
	h.requireError(h.do("GET", "/jobs/x", "", "Authorization", ""), 401, CodeUnauthorized)
	h.requireError(h.do("GET", "/jobs/x", ""), 404, CodeNotFound)
	const asJava = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2" // of HttpURLConnection, unless it is told otherwise
	h.requireError(h.do("GET", "/jobs/x", "", "Accept", asJava), 404, CodeNotFound)
	require.Equal(t, 200, h.do("GET", "/jobs/x", "", "Accept", asBrowser, "Authorization", "Basic YTpi").status, "behind a proxy with a login of its own")
	a := h.do("GET", "/", "", "Authorization", "")
	require.Equal(t, "comfyd", a.body["name"], "clients get JSON: %s", a.raw)
	require.Contains(t, a.body["submit"], "/submit_workflow")
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
}

// TestPageFiles: every file that the page and its modules name is there, for good, and of a kind that a browser takes.
func TestPageFiles(t *testing.T) {
	h := newHarness(t)
	start := string(h.do("GET", "/", "", "Accept", asBrowser, "Authorization", "").raw)
	digest := regexp.MustCompile(`web/([0-9a-f]{16})/app\.js`).FindStringSubmatch(start)
	require.NotNil(t, digest, start)
	folder := "/web/" + digest[1] + "/"
	want := map[string]bool{"example.json": true}
	for _, found := range regexp.MustCompile(`web/[0-9a-f]+/([a-z.]+)"`).FindAllStringSubmatch(start, -1) {
		want[found[1]] = true
	}
	types := map[string]string{"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "json": "application/json"}
	seen := map[string]bool{}
	for len(seen) < len(want) {
		for name := range want {
			if seen[name] {
				continue
			}
			seen[name] = true
			a := h.do("GET", folder+name, "", "Authorization", "")
			require.Equal(t, 200, a.status, name)
			_, ext, _ := strings.Cut(name, ".")
			require.Equal(t, types[ext], a.header.Get("Content-Type"), name)
			require.Contains(t, a.header.Get("Cache-Control"), "immutable")
			require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|javascript:`, string(a.raw), "%s: text enters the page as text", name)
			for _, found := range regexp.MustCompile(`from "\./([a-z.]+)"`).FindAllStringSubmatch(string(a.raw), -1) {
				want[found[1]] = true
			}
		}
	}
	require.Greater(t, len(seen), 20)
	require.Len(t, h.server.page.files, len(seen)+2, "the document, the icon, and nothing that nobody uses")
	for _, path := range []string{"/web/0000000000000000/app.js", folder + "index.html", folder + "nothing.js", folder + "..%2fpage.go"} {
		h.requireError(h.do("GET", path, ""), 404, CodeNotFound)
	}
	for _, path := range []string{"/favicon.ico", "/favicon.svg"} {
		a := h.do("GET", path, "", "Authorization", "")
		require.Equal(t, http.StatusOK, a.status)
		require.Equal(t, "image/svg+xml", a.header.Get("Content-Type"))
	}
}

func TestPageSettings(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.TemporalUI, o.Namespace = "http://127.0.0.1:8233", "ns" })
	h.requireError(h.do("GET", "/page.json", "", "Authorization", ""), 401, CodeUnauthorized)
	require.Equal(t, map[string]any{"version": "test", "temporal_ui": "http://127.0.0.1:8233", "temporal_namespace": "ns"}, h.do("GET", "/page.json", "").body)
}
