package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func form(t *testing.T, fields ...string) (body, media string) {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for i := 0; i < len(fields); i += 3 {
		if fields[i+1] == "" {
			require.NoError(t, w.WriteField(fields[i], fields[i+2]))
			continue
		}
		part, err := w.CreateFormFile(fields[i], fields[i+1])
		require.NoError(t, err)
		_, err = part.Write([]byte(fields[i+2]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buf.String(), w.FormDataContentType()
}

func TestUpload(t *testing.T) {
	h := newHarness(t)
	content := strings.Repeat("bytes of a picture ", 10_000)
	sum := sha256.Sum256([]byte(content))
	digest := hex.EncodeToString(sum[:])
	formFile, mediaFile := form(t, "image", `C:\pics\x.png`, content)
	formName, mediaName := form(t, "file", "other.png", content, "name", "", "dir/x.png", "ignored", "", "y")
	for name, c := range map[string]struct{ path, body, media, name string }{
		"raw":       {"/inputs?name=a%20b.png", content, "image/png", "a b.png"},
		"no type":   {"/inputs?name=x", content, "", "x"},
		"JSON":      {"/inputs", fmt.Sprintf(`{"name":"x.png","image":"data:;base64,%s"}`, base64.StdEncoding.EncodeToString([]byte(content))), "application/json", "x.png"},
		"form":      {"/inputs", formFile, mediaFile, "x.png"},
		"form name": {"/inputs", formName, mediaName, "dir/x.png"},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			a := h.do("POST", c.path, c.body, "Content-Type", c.media)
			require.Equal(t, 201, a.status, "%s", a.raw)
			require.Equal(t, map[string]any{"name": c.name, "ref": "inputs/a/" + digest, "sha256": digest, "size_bytes": float64(len(content))}, a.body)
			require.Equal(t, content, string(h.store.objects["inputs/a/"+digest]))
		})
	}
	require.Len(t, h.store.objects, 1)
}

func TestUploadRefusals(t *testing.T) {
	h := newHarness(t)
	two, mediaTwo := form(t, "file", "a", "x", "file", "b", "y")
	none, mediaNone := form(t, "other", "", "x")
	evil, mediaEvil := form(t, "file", "..", "x")
	for name, c := range map[string]struct {
		path, body, media string
		status            int
		code              Code
	}{
		"no name":         {"/inputs", "x", "image/png", 422, CodeInvalidInput},
		"traversal":       {"/inputs?name=../x", "x", "image/png", 422, CodeInvalidInput},
		"empty":           {"/inputs?name=x", "", "image/png", 422, CodeInvalidInput},
		"urlencoded":      {"/inputs?name=x", "x", "application/x-www-form-urlencoded", 415, CodeUnsupportedMedia},
		"odd type":        {"/inputs?name=x", "x", ";;", 415, CodeUnsupportedMedia},
		"two files":       {"/inputs", two, mediaTwo, 400, CodeInvalidRequest},
		"no file":         {"/inputs", none, mediaNone, 400, CodeInvalidRequest},
		"form traversal":  {"/inputs", evil, mediaEvil, 422, CodeInvalidInput},
		"form cut":        {"/inputs", two[:60], mediaTwo, 400, CodeInvalidRequest},
		"no boundary":     {"/inputs", two, "multipart/form-data", 400, CodeInvalidRequest},
		"JSON ref":        {"/inputs", `{"name":"x","ref":"y"}`, "application/json", 400, CodeInvalidRequest},
		"JSON, no image":  {"/inputs", `{"name":"x"}`, "application/json", 400, CodeInvalidRequest},
		"JSON, more":      {"/inputs", `{"name":"x","image":"eA"} 1`, "application/json", 400, CodeInvalidRequest},
		"JSON, bad bytes": {"/inputs", `{"name":"x","image":"!"}`, "application/json", 422, CodeInvalidInput},
		"JSON, a URL":     {"/inputs", `{"name":"x","image":"HTTP://x"}`, "application/json", 422, CodeInvalidInput},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			h.requireError(h.do("POST", c.path, c.body, "Content-Type", c.media), c.status, c.code)
		})
	}
}
