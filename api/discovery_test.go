package api

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDiscovery(t *testing.T) {
	h := newHarness(t)
	for path, want := range map[string]string{
		"/models":              `{"models":{"checkpoints":[{"name":"a.ckpt","pools":["url"]},{"name":"b.safetensors","pools":["local","url"]}],"vae":[]}}`,
		"/models/checkpoints":  `{"folder":"checkpoints","models":[{"name":"a.ckpt","pools":["url"]},{"name":"b.safetensors","pools":["local","url"]}]}`,
		"/models/vae":          `{"folder":"vae","models":[]}`,
		"/nodes":               `{"nodes":[{"name":"A/B C|x","pools":["local","url"]},{"name":"SaveImage","pools":["url"]}]}`,
		"/nodes/A%2FB%20C%7Cx": `{"name":"A/B C|x","pools":["local","url"],"definition":{"input":{"required":{"z":["INT"],"a":["IMAGE"]}}}}`,
		"/nodes/A/B%20C%7Cx":   `{"name":"A/B C|x","pools":["local","url"],"definition":{"input":{"required":{"z":["INT"],"a":["IMAGE"]}}}}`,
	} {
		a := h.do("GET", path, "")
		require.Equal(t, 200, a.status, "%s: %s", path, a.raw)
		require.JSONEq(t, want, string(a.raw), path)
		require.Equal(t, "private, no-cache", a.header.Get("Cache-Control"))
		same := h.do("GET", path, "", "If-None-Match", a.header.Get("ETag"))
		require.Equal(t, 304, same.status, path)
		require.Empty(t, same.raw)
		require.Equal(t, a.header.Get("ETag"), same.header.Get("ETag"))
		h.requireError(h.do("GET", path, "", "Authorization", ""), 401, CodeUnauthorized)
	}
	require.Contains(t, string(h.do("GET", "/nodes/A%2FB%20C%7Cx", "").raw), `"z":["INT"],"a":`, "inputs keep their order")
	for path, text := range map[string]string{
		"/models/checkpoint": "Did you mean checkpoints?", "/nodes/SaveImag": "Did you mean SaveImage, SaveImages?",
	} {
		a := h.do("GET", path, "")
		h.requireError(a, 404, CodeNotFound)
		require.Contains(t, a.body["error"], text)
	}
	h.catalogs.dead = errors.New("no worker at 10.0.0.1")
	for _, path := range []string{"/models", "/models/vae", "/nodes", "/nodes/x"} {
		a := h.do("GET", path, "")
		h.requireError(a, 503, CodeUnavailable)
		require.NotContains(t, string(a.raw), "10.0.0.1")
		require.Equal(t, "2", a.header.Get("Retry-After"))
	}
}
