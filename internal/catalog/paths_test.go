package catalog

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPathErrors(t *testing.T) {
	c := fixture(t)
	job := []string{"mine.png", "sub/mine.png", "comfyd/own.png"}
	const everywhere, known, nowhere = "with and without a catalogue", "with a catalogue alone", ""
	for _, k := range []struct {
		class, input string
		value        any
		refused      string
	}{
		{"LoadImage", "image", "gradient.png", nowhere},
		{"LoadImage", "image", "gradient.png [input]", nowhere},
		{"LoadImage", "image", "mine.png", nowhere},
		{"LoadImage", "image", "sub/mine.png [input]", nowhere},
		{"LoadImage", "image", "elsewhere/x.png", nowhere},
		{"LoadImage", "image", "a..b.png", nowhere},
		{"LoadImage", "image", "...", nowhere},
		{"LoadImage", "image", "", nowhere},
		{"LoadImage", "image", "comfyd.png", nowhere},
		{"LoadImage", "image", "sub/comfyd/x.png", nowhere},
		{"LoadImage", "image", "blake3:00ff", nowhere},
		{"LoadImage", "image", "comfyd/own.png", nowhere},
		{"LoadImage", "image", 5, nowhere},
		{"LoadImage", "image", []any{"str", 0}, nowhere},
		{"LoadImage", "image", "/etc/passwd", everywhere},
		{"LoadImage", "image", "//etc/passwd", everywhere},
		{"LoadImage", "image", `\\host\share\x.png`, everywhere},
		{"LoadImage", "image", `C:\x.png`, everywhere},
		{"LoadImage", "image", `c:x.png`, everywhere},
		{"LoadImage", "image", "../output/x.png", everywhere},
		{"LoadImage", "image", `..\output\x.png`, everywhere},
		{"LoadImage", "image", "a/../../x.png", everywhere},
		{"LoadImage", "image", "a/.. /x.png", everywhere},
		{"LoadImage", "image", "..", everywhere},
		{"LoadImage", "image", "../x.png [input]", everywhere},
		{"LoadImage", "image", "x.png [output]", everywhere},
		{"LoadImage", "image", "x.png[output]", everywhere},
		{"LoadImage", "image", "x.png [temp]", everywhere},
		{"LoadImage", "image", "x.png [output] [input]", everywhere},
		{"LoadImage", "image", "comfyd/job/x.png", everywhere},
		{"LoadImage", "image", "./comfyd//x.png", everywhere},
		{"LoadImage", "image", `ComfyD\x.png`, everywhere},
		{"LoadImage", "image", "comfyd. /x.png", everywhere},
		{"LoadImage", "image", "comfyd/x.png [input]", everywhere},
		{"LoadImage", "image", "comfyd", everywhere},
		{"LoadImage", "image", "x\x00.png", everywhere},
		{"LoadImage", "image", map[string]any{"__value__": "/etc/passwd"}, everywhere},
		{"LoadImage", "image", map[string]any{"__value__": []any{"a", "/etc/passwd"}}, everywhere},
		{"LoadImage", "image", []any{"a.png", "/etc/passwd"}, everywhere},
		{"LoadImageOutput", "image", "x.png [output]", everywhere},
		{"LoadVideo", "file", "/x.mp4", everywhere},
		{"LoadLatent", "latent", "../x.latent", everywhere},
		{"LoadImageDataSetFromFolder", "folder", "mine", nowhere},
		{"LoadImageDataSetFromFolder", "folder", "../../etc", everywhere},
		{"LoadImageDataSetFromFolder", "folder", "comfyd", everywhere}, // although ComfyUI lists it
		{"LoadImageDataSetFromFolder", "folder", []any{"str", 0}, everywhere},
		{"SaveImageDataSetToFolder", "folder_name", "mine", nowhere},
		{"SaveImageDataSetToFolder", "folder_name", "comfyd [output]", nowhere},
		{"SaveImageDataSetToFolder", "folder_name", "../../etc", everywhere},
		{"SaveImageDataSetToFolder", "folder_name", []any{"str", 0}, everywhere},
		{"VendorVideo", "video", "/x.mp4", everywhere},
		{"VendorVideo", "video", "a.mp4", nowhere},
		{"VendorNode", "mode", "../x", known}, // a choice, but not by its name
		{"UpscaleModelLoader", "model_name", "../../x.pth", known},
		{"UpscaleModelLoader", "model_name", "comfyd/x.pth", known},
		{"CLIPTextEncode", "text", "/imagine ../../ [output]", nowhere},
		{"PrimitiveString", "value", "/etc/passwd", nowhere},
		{"SaveImage", "filename_prefix", "../../evil", nowhere}, // ComfyUI guards it, and says so itself
		{"Gone", "image", "/etc/passwd", everywhere},
		{"Gone", "text", "/etc/passwd", nowhere},
	} {
		t.Run(fmt.Sprintf("%s %s %v", k.class, k.input, k.value), func(t *testing.T) {
			value, err := json.Marshal(k.value)
			require.NoError(t, err)
			g := graph(t, fmt.Sprintf(`{"1":{"class_type":%q,"inputs":{%q:%s}},"str":{"class_type":"PrimitiveString","inputs":{"value":"x"}}}`, k.class, k.input, value))
			bad := PathErrors(g, c, job)
			require.Equal(t, k.refused != nowhere, len(bad) == 1, "with the catalogue: %v", bad)
			without := PathErrors(g, nil, job)
			require.Equal(t, k.refused == everywhere, len(without) == 1, "without one: %v", without)
			if len(bad) == 1 {
				require.Equal(t, "path_not_allowed", bad["1"].Errors[0].Type)
				require.Contains(t, bad.Summary(), fmt.Sprintf("Input %q of node \"1\" (%s)", k.input, k.class))
			}
		})
	}
}

func TestNearest(t *testing.T) {
	names := []string{"SaveImage", "SaveImages2", "LoadImage", "KSampler", "KSamplerAdvanced", "VAEDecode", "loras/Detail_Tweaker-XL.safetensors", "a", ""}
	for name, want := range map[string][]string{
		"saveimage":                            {"SaveImage", "SaveImages2"},
		"SaveImge":                             {"SaveImage", "SaveImages2"},
		"Ksampler (advanced)":                  {"KSamplerAdvanced", "KSampler"},
		"detail-tweaker-xl.ckpt":               {"loras/Detail_Tweaker-XL.safetensors"},
		"models/detail tweaker xl.safetensors": {"loras/Detail_Tweaker-XL.safetensors"},
		"SomethingElseAltogether":              nil,
		"":                                     nil,
	} {
		require.Equal(t, want, nearest(name, names), name)
	}
}
