package catalog_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/internal/catalog"
)

func TestListing(t *testing.T) {
	m := &memory{blobs: map[string][]byte{}}
	d := catalog.NewDirectory(m, nil)
	_, err := d.Nodes(t.Context())
	require.ErrorIs(t, err, catalog.ErrNoBackend)

	raw, err := os.ReadFile("testdata/object_info.json")
	require.NoError(t, err)
	more := json.RawMessage(`{"SaveImage":{"input":{},"output":[],"output_node":true,"python_module":"nodes"},
		"CLIPLoader":{"input":{"required":{"clip_name":[["t5xxl.safetensors"]]}},"output":["CLIP"],"python_module":"nodes"},
		"CheckpointLoaderSimple":{"input":{"required":{"ckpt_name":["COMBO",{"options":["v1-5-pruned-emaonly.safetensors","only-here.ckpt"]}]}},"output":["MODEL"],"python_module":"nodes"},
		"Vendor":{"input":{"required":{"ckpt_name":[["vendor.ckpt"]]}},"output":["MODEL"],"python_module":"custom_nodes.vendor"}}`)
	publish(t, m,
		&pool{is: backend.Pool{Name: "local"}, servers: []backend.Server{{Name: "a", Healthy: true, Catalog: raw}}},
		&pool{is: backend.Pool{Name: "url"}, servers: []backend.Server{{Name: "b", Catalog: more}, {Name: "c", Catalog: more}, {Name: "d"}}})
	d = catalog.NewDirectory(m, nil)

	nodes, err := d.Nodes(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"local", "url"}, nodes["SaveImage"])
	require.Equal(t, []string{"local"}, nodes["VAEDecode"])

	models, _, err := d.Models(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, map[string][]string{
		"v1-5-pruned-emaonly.safetensors": {"local", "url"}, "folder/sd_xl_base_1.0.safetensors": {"local"}, "only-here.ckpt": {"url"},
	}, models["checkpoints"], "what other people's nodes list may be anything")
	require.Equal(t, map[string][]string{"ae.safetensors": {"local"}}, models["vae"], "what a loader makes itself is no file")
	require.Empty(t, models["loras"])
	require.Contains(t, models, "loras")
	models, _, err = d.Models(t.Context(), "clip")
	require.NoError(t, err)
	require.Equal(t, map[string]map[string][]string{"text_encoders": {"t5xxl.safetensors": {"url"}}}, models, "by its older name")
	models, near, err := d.Models(t.Context(), "checkpoint")
	require.NoError(t, err)
	require.Empty(t, models)
	require.Equal(t, "checkpoints", near[0])

	definition, pools, _, err := d.Node(t.Context(), "VAELoader")
	require.NoError(t, err)
	require.Equal(t, []string{"local"}, pools)
	require.Equal(t, `{"input":{"required":{"vae_name":[["ae.safetensors","pixel_space"]]}},"output":["VAE"],"output_node":false,"python_module":"nodes"}`, string(definition))
	definition, _, near, err = d.Node(t.Context(), "VAELoadr")
	require.NoError(t, err)
	require.Nil(t, definition)
	require.Equal(t, "VAELoader", near[0])
}
