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
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	validation "github.com/pb33f/libopenapi-validator/errors"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/api/openapi"
	"github.com/comfyd/comfyd/comfy"
)

// described is the description, with what holds requests and answers to it.
type described struct {
	doc map[string]any
	// requests lets fields pass that it does not know, as the server does; answers have none but those described.
	requests, answers validator.Validator
}

var description = sync.OnceValue(func() *described {
	d := &described{}
	parsed, err := openapi.New("test")
	must(err)
	raw, err := parsed.JSON("http://127.0.0.1")
	must(err)
	must(json.Unmarshal(raw, &d.doc))
	build := func(raw []byte, options ...config.Option) validator.Validator {
		doc, err := libopenapi.NewDocument(raw)
		must(err)
		v, errs := validator.NewValidator(doc, options...)
		for _, err := range errs {
			must(err)
		}
		return v
	}
	d.requests = build(raw)
	var open any
	must(json.Unmarshal(raw, &open))
	closed, err := json.Marshal(shut(open, false))
	must(err)
	d.answers = build(closed, config.WithFormatAssertions())
	return d
})

// shut is a description whose objects have no fields but those described. Where a schema is used counts, not where it is
// part of another one ("allOf").
func shut(v any, used bool) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = shut(v[i], false)
		}
	case map[string]any:
		for k, child := range v {
			switch k {
			case "example", "examples", "enum", "const", "default":
			case "properties":
				for name, property := range child.(map[string]any) {
					child.(map[string]any)[name] = shut(property, true)
				}
			default:
				v[k] = shut(child, k == "schema" || k == "items" || k == "additionalProperties")
			}
		}
		if used && (v["$ref"] != nil || v["allOf"] != nil || v["oneOf"] != nil || v["properties"] != nil) {
			return map[string]any{"allOf": []any{v}, "unevaluatedProperties": false}
		}
	}
	return v
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// path is a request's path as the description has it: the names of node classes may hold slashes, and the server pays no
// heed to one at the end.
func (d *described) path(path string) string {
	if path != "/" {
		path = strings.TrimSuffix(path, "/")
	}
	if class, ok := strings.CutPrefix(path, "/nodes/"); ok {
		return "/nodes/" + strings.ReplaceAll(class, "/", "%2F")
	}
	return path
}

// operation is the path in the description that a request means; "" where there is none.
func (d *described) operation(method, path string) string {
	for template, item := range d.doc["paths"].(map[string]any) {
		if _, ok := item.(map[string]any)[strings.ToLower(method)]; ok && slices.EqualFunc(strings.Split(template, "/"), strings.Split(path, "/"),
			func(a, b string) bool {
				return a == b || strings.HasPrefix(a, "{") && b != "" && strings.HasSuffix(b, a[strings.Index(a, "}")+1:])
			}) {
			return template
		}
	}
	return ""
}

// largest is the size of bodies that are held to the description: larger ones only show that large ones work.
const largest = 1 << 20

// check holds a request and its answer to the description. What it says is wrong, the server must not take.
func (d *described) check(t *testing.T, req *http.Request, body string, a answer) {
	t.Helper()
	if len(body) > largest || len(a.raw) > largest || req.Method == http.MethodHead {
		return // HEAD is GET's answer without a body
	}
	again := req.Clone(t.Context())
	again.URL.RawPath = d.path(again.URL.EscapedPath())
	var err error
	again.URL.Path, err = url.PathUnescape(again.URL.RawPath)
	require.NoError(t, err)
	if d.operation(again.Method, again.URL.RawPath) == "" {
		require.Contains(t, []int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNoContent}, a.status,
			"%s %s is not described", req.Method, req.URL.Path)
		return
	}
	if again.Header.Get("Content-Type") == "" {
		again.Header.Set("Content-Type", "application/octet-stream") // which HTTP takes it for
	}
	again.Body = io.NopCloser(strings.NewReader(strings.TrimPrefix(body, "\ufeff")))
	if a.status < 300 {
		_, errs := d.requests.ValidateHttpRequest(again)
		require.Empty(t, problems(errs), "%s %s was answered with %d, though the description does not allow it: %s", req.Method, req.URL, a.status, body)
	}
	again.Body = io.NopCloser(strings.NewReader(body))
	_, errs := d.answers.ValidateHttpResponse(again, &http.Response{
		StatusCode: a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.raw)), Request: again,
	})
	require.Empty(t, problems(errs), "%s %s: the description does not know this answer: %d %s", req.Method, req.URL, a.status, a.raw)
}

func problems(errs []*validation.ValidationError) (all []string) {
	for _, e := range errs {
		text := e.Message + ": " + e.Reason
		for _, s := range e.SchemaValidationErrors {
			text += "; " + s.FieldPath + " " + s.Reason
		}
		all = append(all, text)
	}
	return all
}

func TestDescriptionIsOpenAPI(t *testing.T) {
	_, errs := description().requests.ValidateDocument()
	require.Empty(t, problems(errs))
}

// at follows the references of the description: it is the value there, or what that refers to.
func (d *described) at(v any) map[string]any {
	m, _ := v.(map[string]any)
	ref, ok := m["$ref"].(string)
	if !ok {
		return m
	}
	var found any = d.doc
	for _, key := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		found = found.(map[string]any)[key]
	}
	return d.at(found)
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
