package api

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	validation "github.com/pb33f/libopenapi-validator/errors"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/api/openapi"
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
