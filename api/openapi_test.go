package api

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
)

func TestDescriptionIsOpenAPI(t *testing.T) {
	_, errs := description().requests.ValidateDocument()
	require.Empty(t, problems(errs))
}

// The answers that the description gives as examples are such as it describes.
func TestExamplesAreAsDescribed(t *testing.T) {
	d := description()
	held := 0
	for path, item := range d.doc["paths"].(map[string]any) {
		for method, operation := range item.(map[string]any) {
			for status, response := range operation.(map[string]any)["responses"].(map[string]any) {
				content := d.at(d.at(response)["content"])
				for _, example := range d.at(d.at(content["application/json"])["examples"]) {
					raw, err := json.Marshal(d.at(example)["value"])
					require.NoError(t, err)
					code, err := strconv.Atoi(status)
					require.NoError(t, err)
					address := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "x")
					req, err := http.NewRequest(strings.ToUpper(method), "http://127.0.0.1"+address, nil)
					require.NoError(t, err)
					_, errs := d.answers.ValidateHttpResponse(req, &http.Response{
						StatusCode: code, Body: io.NopCloser(bytes.NewReader(raw)), Request: req,
						Header: http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"x"}, "Etag": {"x"}},
					})
					require.Empty(t, problems(errs), "%s %s: %d %s", method, path, code, raw)
					held++
				}
			}
		}
	}
	require.Greater(t, held, 12)
}

// Every route is described, and every path that is described is a route.
func TestDescriptionHasEveryRoute(t *testing.T) {
	h := newHarness(t, func(o *Options) {
		o.Metrics = http.NotFoundHandler()
		o.CodecServer = &CodecServer{Codec: flip{}, Password: "x"}
	})
	routes := map[string]bool{}
	for _, r := range h.server.app.GetRoutes(true) {
		if r.Method == http.MethodHead {
			continue // it comes with each GET
		}
		r.Path = strings.Replace(r.Path, ":archive", ":id.zip", 1)
		path, optional := strings.CutSuffix(r.Path, "?")
		path = regexp.MustCompile(`:(\w+)`).ReplaceAllString(strings.ReplaceAll(path, "+", "{class}"), "{$1}")
		routes[r.Method+" "+path] = true
		if optional {
			routes[r.Method+" "+path[:strings.LastIndex(path, "/")]] = true
		}
	}
	paths := map[string]bool{}
	for path, item := range description().doc["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			paths[strings.ToUpper(method)+" "+path] = true
		}
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(routes)), slices.Collect(maps.Keys(paths)))
}

// The lists of codes are those of the code, and each stands with its own status.
func TestDescriptionHasEveryCode(t *testing.T) {
	components := description().doc["components"].(map[string]any)
	schemas := components["schemas"].(map[string]any)
	enum := func(name string) (all []string) {
		for _, v := range schemas[name].(map[string]any)["enum"].([]any) {
			all = append(all, v.(string))
		}
		return all
	}
	require.ElementsMatch(t, constants(t, "errors.go", "Code"), enum("ErrorCode"))
	require.ElementsMatch(t, constants(t, "../comfy/code.go", "Code"), enum("JobCode"))
	for _, code := range enum("JobCode") {
		require.True(t, knownCode(comfy.Code(code)), code)
	}
}

// constants are the values of the constants of a type in a file.
func constants(t *testing.T, file, kind string) (all []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	require.NoError(t, err)
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == kind {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			all = append(all, value)
		}
		return true
	})
	require.NotEmpty(t, all)
	return all
}

// The address of the server is the one that the client has used.
func TestDescriptionIsServed(t *testing.T) {
	h := newHarness(t)
	a := h.do("GET", "/openapi.json", "", "Authorization", "")
	require.Equal(t, 200, a.status)
	require.Equal(t, "3.1.0", a.body["openapi"])
	require.NotContains(t, a.body["paths"], "/codec/decode", "what this server has no settings for")
	require.NotContains(t, a.body["paths"], "/metrics")
	require.Equal(t, "http://"+h.addr, a.body["servers"].([]any)[0].(map[string]any)["url"])
	require.Equal(t, "test", a.body["info"].(map[string]any)["version"])
	require.Less(t, bytes.Index(a.raw, []byte(`"/submit_workflow"`)), bytes.Index(a.raw, []byte(`"/jobs"`)), "what a person reads first comes first")

	public := newHarness(t, func(o *Options) { o.PublicURL = "https://comfy.example.com/api/" })
	a = public.do("GET", "/openapi.json", "", "Authorization", "")
	require.Equal(t, "https://comfy.example.com/api", a.body["servers"].([]any)[0].(map[string]any)["url"])
}

// The page of the description needs no key, and is made of what this server has.
func TestDocsPage(t *testing.T) {
	h := newHarness(t)
	page := h.do("GET", "/docs", "", "Authorization", "")
	require.Equal(t, 200, page.status)
	require.Contains(t, page.header.Get("Content-Security-Policy"), "default-src 'none'")
	found := regexp.MustCompile(`(?:src|href)="(docs/[^"]+)"`).FindAllStringSubmatch(string(page.raw), -1)
	require.Len(t, found, 4)
	for _, f := range found {
		packed := h.do("GET", "/"+f[1], "", "Authorization", "", "Accept-Encoding", "gzip")
		open := h.do("GET", "/"+f[1], "", "Authorization", "", "Accept-Encoding", "identity")
		require.Equal(t, 200, packed.status, f[1])
		require.NotEmpty(t, open.raw)
		require.Empty(t, open.header.Get("Content-Encoding"))
		require.LessOrEqual(t, len(packed.raw), len(open.raw))
	}
	for _, name := range []string{"nothing.js", "index.htm", "embed.go", "..%2Froutes.go"} {
		require.Equal(t, 404, h.do("GET", "/docs/"+name, "", "Authorization", "").status, name)
	}
}

// docs/errors.md has a row for each code, with its status.
func TestErrorsAreDocumented(t *testing.T) {
	raw, err := os.ReadFile("../docs/errors.md")
	require.NoError(t, err)
	requests, jobs, found := strings.Cut(string(raw), "\n## Jobs\n")
	require.True(t, found)
	codes := func(text, row string) (all []string) {
		for _, m := range regexp.MustCompile(row).FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
			if len(m) > 2 {
				require.Equal(t, strconv.Itoa(Code(m[1]).Status()), m[2], m[1])
			}
		}
		return all
	}
	require.ElementsMatch(t, constants(t, "errors.go", "Code"), codes(requests, "(?m)^\\| `(\\w+)` \\| (\\d+) \\|"))
	require.ElementsMatch(t, constants(t, "../comfy/code.go", "Code"), codes(jobs, "(?m)^\\| `(\\w+)` \\|"))
}
