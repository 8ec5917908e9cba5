package catalog

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDefinition: it is what /object_info says, in its order, without what people have sent.
func TestDefinition(t *testing.T) {
	for name, c := range map[string]struct{ class, raw, want string }{
		"as it is": {"A", `{"input":{"required":{"z":["FLOAT",{"default":1.50,"max":1e3}],"a":[["euler","dpm"],{}]},"hidden":null},"input_order":{"required":["z","a"]},"output":["MODEL"]}`, ""},
		"a list": {"LoadImage", `{"input":{"required":{"image":[["a.png","secret"],{"image_upload":true,"default":"a.png","tooltip":"x"}]}},"python_module":"nodes"}`,
			`{"input":{"required":{"image":[[],{"image_upload":true,"tooltip":"x"}]}},"python_module":"nodes"}`},
		"a COMBO": {"Vendor", `{"input":{"optional":{"video":["COMBO",{"multiselect":false,"options":["a","b"],"video_upload":true}]}}}`,
			`{"input":{"optional":{"video":["COMBO",{"multiselect":false,"options":[],"video_upload":true}]}}}`},
		"folders":      {"LoadImageDataSetFromFolder", `{"input":{"required":{"folder":["COMBO",{"options":["mine"]}]}},"python_module":"comfy_extras.nodes_x"}`, `{"input":{"required":{"folder":["COMBO",{"options":[]}]}},"python_module":"comfy_extras.nodes_x"}`},
		"another list": {"Vendor", `{"input":{"required":{"x":[["m.safetensors","a.PNG","comfyd","comfyd/ab/x","b.jpg [input]","png",".png","notes.txt"]]}},"output":[["c.mp4","d"],"IMAGE"],"output_name":["x.png"]}`, `{"input":{"required":{"x":[["m.safetensors","png",".png"]]}},"output":[["d"],"IMAGE"],"output_name":["x.png"]}`},
		"no object":    {"Odd", `"x"`, ""},
		"odd":          {"Odd", `{"input":[],"output":{"a":"b.png"},"x":[[[]]]}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.want == "" {
				c.want = c.raw
			}
			cl, _ := parseClass(c.class, json.RawMessage(c.raw))
			require.Equal(t, c.want, string(cl.definition()))
		})
	}
}

// TestDefinitionsOfTheFixture: each is JSON, and none names a file.
func TestDefinitionsOfTheFixture(t *testing.T) {
	c := fixture(t)
	for _, name := range c.names {
		definition := string(c.classes[name].definition())
		require.True(t, json.Valid([]byte(definition)), "%s: %s", name, definition)
		for _, file := range []string{"gradient.png", "photo one.jpg", "clip.mp4", "a.mp4", "comfyd", "mine"} {
			require.NotContains(t, definition, `"`+file+`"`, name)
		}
	}
}

// TestRealDefinitions: of a real ComfyUI with files of somebody's in its input folder.
func TestRealDefinitions(t *testing.T) {
	r := real(t)
	r.put("of-another-tenant.png", []byte("x"))
	r.put("comfyd/of-a-job/x.glb", []byte("x"))
	c := r.catalog()
	require.Contains(t, string(c.classes["LoadImage"].raw), "of-another-tenant.png")
	whole := 0
	for _, name := range c.names {
		definition := c.classes[name].definition()
		require.NotContains(t, string(definition), "of-another-tenant", name)
		require.NotContains(t, string(definition), "of-a-job", name)
		require.NotContains(t, string(definition), `"comfyd"`, name)
		var want bytes.Buffer
		require.NoError(t, json.Compact(&want, c.classes[name].raw))
		var got bytes.Buffer
		require.NoError(t, json.Compact(&got, definition), name)
		if got.String() == want.String() {
			whole++
		}
	}
	t.Logf("%d of %d definitions are as they were", whole, len(c.names))
	require.Greater(t, whole, len(c.names)*9/10)
}
