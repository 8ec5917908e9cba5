package comfy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/comfyd/comfyd/comfy"
)

func describe(t *testing.T, graph string) comfy.Description {
	t.Helper()
	g, err := comfy.ParseGraph([]byte(graph))
	if err != nil {
		t.Fatal(err)
	}
	return g.Describe()
}

func TestDescribe(t *testing.T) {
	for name, c := range map[string]struct{ graph, want string }{
		"text to image": {`{
			"10":{"class_type":"SaveImage","inputs":{"images":["6",0]}},
			"1":{"class_type":"CheckpointLoaderSimple","inputs":{"ckpt_name":"sdxl/juggernaut_XL.safetensors"}},
			"3":{"class_type":"CLIPTextEncode","inputs":{"clip":["1",1],"text":"drawing, blurry"}},
			"2":{"class_type":"CLIPTextEncode","inputs":{"clip":["1",1],"text":"an old fisherman"}},
			"4":{"class_type":"EmptyLatentImage","inputs":{"width":832,"height":1216,"batch_size":1}},
			"5":{"class_type":"KSampler","inputs":{"model":["1",0],"negative":["3",0],"positive":["2",0],"latent_image":["4",0]}},
			"6":{"class_type":"VAEDecode","inputs":{"samples":["5",0],"vae":["1",2]}}}`,
			"`an old fisherman` · `juggernaut_XL` · `SaveImage`"},
		"a prompt behind two nodes": {`{
			"1":{"class_type":"PrimitiveString","inputs":{"value":"a lighthouse"}},
			"2":{"class_type":"CLIPTextEncode","inputs":{"clip":["9",0],"text":["1",0]}},
			"3":{"class_type":"FluxGuidance","inputs":{"conditioning":["2",0],"guidance":3.5}},
			"4":{"class_type":"KSampler","inputs":{"positive":["3",0]}},
			"9":{"class_type":"DualCLIPLoader","inputs":{"clip_name1":"t5xxl.safetensors"}}}`,
			"`a lighthouse` · `KSampler`"},
		"no prompt":     {`{"1":{"class_type":"EmptyImage","inputs":{"width":64}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0]}}}`, "`SaveImage`"},
		"one node":      {`{"1":{"class_type":"Nothing","inputs":{}}}`, ""},
		"a circle":      {`{"1":{"class_type":"A","inputs":{"positive":["2",0]}},"2":{"class_type":"B","inputs":{"a":["1",0]}}}`, ""},
		"no such nodes": {`{"1":{"class_type":"A","inputs":{"positive":["7",0]}}}`, "`A`"},
	} {
		if got := describe(t, c.graph).Summary(""); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	d := describe(t, `{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":48}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0]}}}`)
	if d.Width != "64" || d.Height != "48" || d.Summary("Shot 12") != "`Shot 12` · `SaveImage`" {
		t.Errorf("%+v: %s", d, d.Summary("Shot 12"))
	}
}

// TestDescribeManyPaths: a graph whose paths are without number is described at once.
func TestDescribeManyPaths(t *testing.T) {
	g := `{"0":{"class_type":"A","inputs":{"a":1}}`
	for i := range 900 {
		from, id := mustJSON(i), mustJSON(i+1)
		g += `,"` + id + `":{"class_type":"A","inputs":{"positive":["` + from + `",0],"b":["` + from + `",0]}}`
	}
	d := comfy.Description{}
	parsed, err := comfy.ParseGraph([]byte(g + "}"))
	if err == nil {
		d = parsed.Describe()
	}
	if d.Prompt != "" {
		t.Errorf("%+v", d)
	}
}

func mustJSON(v any) string {
	raw, _ := json.Marshal(v)
	return string(raw)
}

func TestSummaryFits(t *testing.T) {
	for name, text := range map[string]string{
		"plain": strings.Repeat("a cat ", 500), "wide": strings.Repeat("猫", 500), "escaped": strings.Repeat(`<"&\`, 500),
		"emoji": strings.Repeat("🐈", 500), "one letter over": strings.Repeat("x", comfy.MaxSummary),
	} {
		s := comfy.Description{Prompt: text, Model: text, Ends: []string{text}}.Summary("")
		raw := mustJSON(s)
		if len(raw) > comfy.MaxSummary || len(raw) < comfy.MaxSummary-20 || strings.Count(s, "`") != 6 {
			t.Errorf("%s: %d bytes: %s", name, len(raw), raw)
		}
	}
}

// TestLiteral: nothing that a client writes gets out of its code span, or is longer than allowed.
func TestLiteral(t *testing.T) {
	for text, want := range map[string]string{
		"a cat":                                "`a cat`",
		"  two\n\nlines\t":                     "`two lines`",
		"`](http://evil)":                      "`'](http://evil)`",
		"<b> &":                                "`<b> &`",
		"right \u202eto left \u200b \u2028end": "`right to left end`",
		"\xff\x00":                             "",
		" \n":                                  "",
		"a very long text, cut":                "`a very long text,…`",
	} {
		if got := comfy.Literal(text, 20); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzLiteral(f *testing.F) {
	f.Add("a `code` \n\n# heading <script>", 10)
	f.Add("\u202e", 3)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = max(3, min(limit, 1000))
		got := comfy.Literal(text, limit)
		if got == "" {
			return
		}
		inner := got[1 : len(got)-1]
		if got[0] != '`' || got[len(got)-1] != '`' || strings.ContainsAny(inner, "`\n\r") || inner != strings.TrimSpace(inner) || inner == "" ||
			len(mustJSON(inner))-2 > limit {
			t.Errorf("%q: %q", text, got)
		}
	})
}
