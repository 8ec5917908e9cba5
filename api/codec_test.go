package api

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
)

// flip is a codec that nobody should use.
type flip struct{}

func (flip) Encode(all []*common.Payload) ([]*common.Payload, error) {
	var out []*common.Payload
	for _, p := range all {
		if bytes.Equal(p.Data, []byte("broken")) {
			return nil, errors.New("broken")
		}
		turned := bytes.Clone(p.Data)
		for i := range turned {
			turned[i] ^= 1
		}
		out = append(out, &common.Payload{Metadata: p.Metadata, Data: turned})
	}
	return out, nil
}

func (f flip) Decode(all []*common.Payload) ([]*common.Payload, error) { return f.Encode(all) }

func TestCodecServer(t *testing.T) {
	const origin, password = "https://temporal.example.com", "a-password-of-the-codec"
	h := newHarness(t, func(o *Options) {
		o.CodecServer = &CodecServer{Codec: flip{}, Password: password, Origins: []string{origin}}
		o.CORSOrigins = []string{"https://app.example.com"}
	})
	body := func(data string) string {
		return `{"payloads":[{"metadata":{"encoding":"anNvbi9wbGFpbg=="},"data":"` + base64.StdEncoding.EncodeToString([]byte(data)) + `"}]}`
	}
	for _, authorization := range []string{"Bearer " + password, "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+password))} {
		for _, call := range []string{"/codec/decode?preserveStorageRefs=true", "/codec/encode"} {
			a := h.do("POST", call, body("abc"), "Authorization", authorization, "Origin", origin, "X-Namespace", "default")
			require.Equal(t, 200, a.status, "%s", a.raw)
			require.JSONEq(t, body("`cb"), string(a.raw))
			require.Equal(t, origin, a.header.Get("Access-Control-Allow-Origin"))
			require.Equal(t, "true", a.header.Get("Access-Control-Allow-Credentials"))
		}
	}
	auth := []string{"Authorization", "Bearer " + password}
	h.requireError(h.do("POST", "/codec/decode", body("broken"), auth...), 422, CodeInvalidInput)
	h.requireError(h.do("POST", "/codec/decode", `{"payloads":7}`, auth...), 400, CodeInvalidRequest)
	h.requireError(h.do("GET", "/codec/decode", "", auth...), 405, CodeMethodNotAllowed)
	// A tenant's key opens nothing: payloads are everybody's.
	for _, wrong := range []string{"Bearer " + keyA, "", "Basic bm8=", "Basic " + base64.StdEncoding.EncodeToString([]byte(password+":"))} {
		a := h.do("POST", "/codec/decode", body("abc"), "Authorization", wrong, "Origin", origin)
		h.requireError(a, 401, CodeUnauthorized)
		require.Contains(t, a.header.Get("WWW-Authenticate"), "Basic")
	}
	preflight := h.do("OPTIONS", "/codec/decode", "", "Authorization", "", "Origin", origin, "Access-Control-Request-Method", "POST")
	require.Equal(t, 204, preflight.status)
	require.Equal(t, origin, preflight.header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, preflight.header.Get("Access-Control-Allow-Headers"), "X-Namespace")
	for _, foreign := range []string{"https://app.example.com", "https://evil.example.com"} {
		a := h.do("POST", "/codec/decode", body("abc"), append(auth, "Origin", foreign)...)
		require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
	}
	require.Equal(t, 404, newHarness(t).do("POST", "/codec/decode", body("abc")).status)
}

// TestUnreadableSubmission: a job whose memo is encrypted with a key that is not there is nobody else's.
func TestUnreadableSubmission(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	h.change(run, func() {
		run.info.Memo.Fields["submission"].Metadata["encoding"] = []byte("binary/encrypted")
		p, err := converter.GetDefaultDataConverter().ToPayload("b")
		require.NoError(t, err)
		run.info.SearchAttributes = &common.SearchAttributes{IndexedFields: map[string]*common.Payload{"ComfyTenant": p}}
	})
	h.requireError(h.do("GET", "/status/"+id, ""), 404, CodeNotFound) // a is the default tenant
	h.requireError(h.do("GET", "/status/"+id, "", "Authorization", "Bearer "+keyB), 500, CodeInternal)
}

func TestDetails(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.PublicURL = "https://comfy.example.com/" })
	a := h.submit(`{"workflow":{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":48,"prompt":"# a <b>cat</b>\n[x](http://evil) `+"`"+`"}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0]}},"3":{"class_type":"SaveImage","inputs":{"images":["1",0]}}},
		"images":[{"name":"a.png","image":"aGVsbG8="}],"priority":2,"gpu":"H100","timeout_seconds":60,"metadata":{"title":"**x**"}}`, "X-Request-Id", "req-7")
	require.Equal(t, 202, a.status, "%s", a.raw)
	id := a.body["id"].(string)
	run, err := h.temporal.get(id)
	require.NoError(t, err)
	require.Equal(t, "`**x**` · `SaveImage`", run.options.StaticSummary)
	require.Equal(t, "- **Job**: [https://comfy.example.com/jobs/"+id+"](https://comfy.example.com/jobs/"+id+")\n"+
		"- **Tenant**: `a`\n- **Prompt**: `# a <b>cat</b> [x](http://evil) '`\n- **Size**: 64 × 48\n- **Makes**: `SaveImage` × 2\n"+
		"- **Graph**: 3 nodes, 231B\n- **Inputs**: `a.png (5B)`\n- **Asked for**: GPU `H100`, priority 2, at most 60 s\n- **Labels**: `title=**x**`\n- **Request**: `req-7`",
		run.options.StaticDetails)
}
