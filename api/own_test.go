package api

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestOutputAsInput: a link to an output is taken for an input, without a call to anybody, wherever it says that it leads.
func TestOutputAsInput(t *testing.T) {
	h := newHarness(t)
	id, run := h.submitted()
	raw := picture(t, 3, 2)
	h.complete(run, raw)
	run.result.Images[0].Filename = "a b&ü?.png"
	link := func() string {
		a := h.do("GET", "/status/"+id+"?output=url", "")
		require.Equal(t, 200, a.status)
		return a.body["output"].(map[string]any)["images"].([]any)[0].(map[string]any)["url"].(string)
	}
	first := link()
	require.True(t, strings.HasPrefix(first, "http://127.0.0.1:"), "an address that nobody may call")
	for name, address := range map[string]string{
		"as it is":                first,
		"by another name of ours": strings.Replace(first, "http://"+h.addr, "https://comfyd.example/below/it", 1),
	} {
		a := h.submit(withImages(address))
		require.Equal(t, 202, a.status, "%s: %s", name, a.raw)
		next, err := h.temporal.get(a.body["id"].(string))
		require.NoError(t, err)
		in := next.request.Images[0]
		require.Equal(t, "inputs/a/"+run.result.Images[0].SHA256, in.Ref, name)
		require.Equal(t, raw, h.store.objects[in.Ref], name)
	}
	up := h.do("POST", "/inputs", `{"name":"a.png","image":"`+first+`"}`, "Authorization", "Bearer "+keyB)
	require.Equal(t, 201, up.status, "%s", up.raw)
	require.Equal(t, "inputs/b/"+run.result.Images[0].SHA256, up.body["ref"], "a link opens for whoever has it")

	key := []string{"Idempotency-Key", "k"}
	once := h.submit(withImages(first), key...)
	require.Equal(t, 202, once.status)
	h.setClock(time.Now().Add(time.Hour))
	fresher := link()
	require.NotEqual(t, first, fresher)
	again := h.submit(withImages(fresher), key...)
	require.Equal(t, 202, again.status, "another link to the same output is the same request: %s", again.raw)
	require.Equal(t, "true", again.header.Get("Idempotent-Replayed"))

	ref := run.result.Images[0].Ref
	h.store.breaks = errors.New("connection reset")
	h.requireError(h.submit(withImages(first)), 503, CodeStorage)
	h.store.breaks = nil
	h.store.objects[ref] = picture(t, 2, 3)
	damaged := h.submit(withImages(first))
	h.requireError(damaged, 422, CodeInvalidInput)
	require.Contains(t, damaged.body["error"], "was lost")
	h.store.objects[ref] = raw

	forged := h.submit(withImages(strings.Replace(first, "signature=", "signature=x", 1)))
	h.requireError(forged, 422, CodeInvalidInput)
	require.Contains(t, forged.body["error"], "no link to an output that this comfyd has signed")

	h.setClock(time.Now().Add(linkLife + 2*clockSkew))
	late := h.submit(withImages(first))
	h.requireError(late, 422, CodeInvalidInput)
	require.Contains(t, late.body["error"], "has expired")

	fresh := link()
	require.Equal(t, 204, h.do("DELETE", "/jobs/"+id, "").status)
	gone := h.submit(withImages(fresh))
	h.requireError(gone, 422, CodeInvalidInput)
	require.Contains(t, gone.body["error"], "is there no more")
	require.NotContains(t, gone.body["error"], "signature")
}

// TestOutputAsInputIsBounded like every file that a request names by URL.
func TestOutputAsInputIsBounded(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.BodyLimit = 1 << 20 })
	id, run := h.submitted()
	h.complete(run, append(picture(t, 2, 2), randomBytes(t, 700<<10)...))
	a := h.do("GET", "/status/"+id+"?output=url", "")
	link := a.body["output"].(map[string]any)["images"].([]any)[0].(map[string]any)["url"].(string)
	over := h.submit(withImages(link, link))
	h.requireError(over, 422, CodeInvalidInput)
	require.Contains(t, over.body["error"], "too large")
}

// TestPNGInfoThatComfyUICannotRead: what ends ComfyUI's execution thread, or makes it answer 500, is refused here.
func TestPNGInfoThatComfyUICannotRead(t *testing.T) {
	h := newHarness(t)
	for name, info := range map[string]string{
		"too deep":        `{"workflow":` + strings.Repeat("[", 900) + "1" + strings.Repeat("]", 900) + `}`,
		"too many digits": `{"workflow":` + strings.Repeat("9", 4301) + `}`,
		"infinite":        `{"workflow":1e999}`,
	} {
		a := h.submit(`{"workflow":` + graphJSON + `,"extra_pnginfo":` + info + `}`)
		h.requireError(a, 400, CodeInvalidRequest)
		require.Contains(t, a.body["error"], "extra_pnginfo cannot be read by ComfyUI", name)
	}
	require.Empty(t, h.temporal.runs)
	require.Equal(t, 400, h.submit(`{"workflow":`+graphJSON+`,"metadata":{"comfyd_batch":"x"}}`).status, "the label is a batch's own")
}
