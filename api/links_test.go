package api

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"

	"github.com/comfyd/comfyd/comfy"
)

func TestLinks(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	raw := randomBytes(t, 300_000)
	h.complete(run, raw)
	run.result.Images[0].Filename = "a b&ü?.png"
	a := h.do("GET", "/status/"+id+"?output=url", "")
	require.Equal(t, 200, a.status)
	img := a.body["output"].(map[string]any)["images"].([]any)[0].(map[string]any)
	require.Equal(t, "url", img["type"])
	require.NotContains(t, img, "data")
	require.NotEmpty(t, img["url_expires_at"])
	link := img["url"].(string)
	noKey := []string{"Authorization", ""}
	get := func(method, link string, headers ...string) answer {
		return h.do(method, link, "", append(headers, noKey...)...)
	}

	got := get("GET", link)
	require.Equal(t, 200, got.status, "%s", got.raw)
	require.True(t, bytes.Equal(raw, got.raw))
	require.Equal(t, "image/png", got.header.Get("Content-Type"))
	require.Contains(t, got.header.Get("Content-Disposition"), "inline")
	require.Equal(t, "nosniff", got.header.Get("X-Content-Type-Options"))
	require.Contains(t, got.header.Get("Content-Security-Policy"), "sandbox")
	tag := got.header.Get("ETag")
	require.Equal(t, `"`+run.result.Images[0].SHA256+`"`, tag)

	head := get("HEAD", link)
	require.Equal(t, 200, head.status)
	require.Equal(t, "300000", head.header.Get("Content-Length"))
	part := get("GET", link, "Range", "bytes=100-199")
	require.Equal(t, 206, part.status)
	require.Equal(t, "bytes 100-199/300000", part.header.Get("Content-Range"))
	require.Equal(t, raw[100:200], part.raw)
	require.Equal(t, raw[299_990:], get("GET", link, "Range", "bytes=-10").raw)
	require.Equal(t, raw[299_000:], get("GET", link, "Range", "bytes=299000-").raw)
	require.Equal(t, 200, get("GET", link, "Range", "bytes=0-1,5-6").status)
	require.Equal(t, 200, get("GET", link, "Range", "bytes=0-1", "If-Range", `"old"`).status)
	require.Equal(t, 206, get("GET", link, "Range", "bytes=0-1", "If-Range", tag).status)
	out := get("GET", link, "Range", "bytes=300000-")
	h.requireError(out, 416, CodeRange)
	require.Equal(t, "bytes */300000", out.header.Get("Content-Range"))
	same := get("GET", link, "If-None-Match", `"x", W/`+tag)
	require.Equal(t, 304, same.status)
	require.Empty(t, same.raw)

	for name, forged := range map[string]string{
		"signature": link[:len(link)-2] + "xx",
		"expiry":    strings.Replace(link, "expires=1", "expires=2", 1),
		"filename":  strings.Replace(link, "a%20b", "a%20c", 1),
		"job":       strings.Replace(link, id, "other", 1),
		"sha":       strings.Replace(link, run.result.Images[0].SHA256, strings.Repeat("0", 64), 1),
	} {
		require.NotEqual(t, link, forged, name)
		h.requireError(get("GET", forged), 403, CodeInvalidLink)
	}
	bare, _, _ := strings.Cut(link, "?")
	h.requireError(get("GET", bare), 401, CodeUnauthorized)
	require.Equal(t, 200, h.do("GET", bare, "").status, "the owner needs no signature")
	require.Equal(t, 200, h.do("GET", "/outputs/"+id+"/"+run.result.Images[0].SHA256, "").status)
	h.requireError(h.do("GET", bare, "", "Authorization", "Bearer "+keyB), 404, CodeNotFound)
	h.requireError(h.do("GET", "/outputs/"+id+"/"+strings.Repeat("0", 64), ""), 404, CodeNotFound)

	delete(h.store.objects, run.result.Images[0].Ref)
	h.requireError(get("GET", link), 500, CodeOutputLost)

	require.NotContains(t, h.log.String(), "signature", "the log keeps no secret")
	h.setClock(time.Now().Add(linkLife + clockSkew + time.Minute))
	h.requireError(get("GET", link), 403, CodeLinkExpired)
}

func TestLinksOfATenantThatIsGone(t *testing.T) {
	key := []byte("0123456789abcdef")
	with := newSigner(key, []Key{{Tenant: "a"}, {Tenant: "b"}}, "a")
	without := newSigner(key, []Key{{Tenant: "a"}}, "a")
	signature := with.sign("b", "/outputs/x", 5)
	tenant, ok := with.verify("/outputs/x", 5, signature)
	require.True(t, ok)
	require.Equal(t, "b", tenant)
	_, ok = without.verify("/outputs/x", 5, signature)
	require.False(t, ok)
}

func TestDownloadNeverShowsScripts(t *testing.T) {
	h := newHarness(t)
	for _, media := range []string{"image/svg+xml", "text/html", "application/xhtml+xml", "text/plain", "application/octet-stream", ""} {
		id, run := h.submitted()
		blob := h.store.put("outputs/"+id+"/", []byte("<script>"))
		run.result = comfy.Result{Files: []comfy.Output{{Filename: "x.svg", Ref: blob.Key, ContentType: media, SHA256: blob.SHA256, SizeBytes: blob.Size}}}
		h.finish(run, enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
		a := h.do("GET", "/outputs/"+id+"/"+blob.SHA256, "")
		require.Equal(t, 200, a.status)
		require.Equal(t, "application/octet-stream", a.header.Get("Content-Type"), media)
		require.Equal(t, "attachment; filename=x.svg", a.header.Get("Content-Disposition"))
		require.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
	}
}
