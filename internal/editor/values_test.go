package editor_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/editor"
)

// node converts one more node beside the two of saved().
func node(t *testing.T, kind, fields string) map[string]json.RawMessage {
	t.Helper()
	return convert(t, saved("/*more*/", fmt.Sprintf(`,{"id":7,"type":%q,%s}`, kind, fields), "/*links*/", `,[5,1,0,7,0,"IMAGE"]`))["7"].Inputs
}

func TestValues(t *testing.T) {
	for name, c := range map[string]struct{ kind, fields, want string }{
		"in their order":        {"ImageAddNoise", `"inputs":[],"widgets_values":[12345678901234567890,"fixed",0.10]`, `{"seed":12345678901234567890,"strength":0.10}`},
		"object links":          {"ImageInvert", `"inputs":[{"name":"image","type":"IMAGE","link":5}]`, `{"image":["1",0]}`},
		"forced, in old files":  {"Forced", `"inputs":[],"widgets_values":[1,2,"fixed","x"]`, `{"seed":2,"b":"x"}`},
		"forced, in new files":  {"Forced", `"inputs":[],"widgets_values":[2,"fixed","x"]`, `{"seed":2,"b":"x"}`},
		"a choice's two":        {"Choice", `"inputs":[],"widgets_values":["a","randomize","",["x","y"]]`, `{"one":"a","many":{"__value__":["x","y"]}}`},
		"button for a file":     {"LoadImage", `"inputs":[],"widgets_values":["a.png","image"]`, `{"image":"a.png"}`},
		"without the button":    {"LoadImage", `"inputs":[],"widgets_values":["a.png"]`, `{"image":"a.png"}`},
		"what a node has shown": {"PreviewAny", `"inputs":[],"widgets_values":["text",null,false]`, `{}`},
		"by name":               {"Named", `"inputs":[],"widgets_values":{"rate":8,"format":"gif","crf":20}`, `{"rate":8,"format":"gif"}`},
		"by name besides":       {"EmptyImage", `"inputs":[],"widgets_values":[1],"widgets_values_named":{"width":9,"height":8,"batch_size":1,"color":0}`, `{"width":9,"height":8,"batch_size":1,"color":0}`},
		"by place first":        {"EmptyImage", `"inputs":[],"widgets_values":[1,2,3,4],"widgets_values_named":{"width":9}`, `{"width":1,"height":2,"batch_size":3,"color":4}`},
		"a choice's inputs": {"Dynamic", `"inputs":[{"name":"mode.image","type":"IMAGE","link":5}],"widgets_values":["sized",64,3,"fixed","t"]`,
			`{"mode":"sized","mode.width":64,"mode.seed":3,"text":"t","mode.image":["1",0]}`},
		"a choice without":      {"Dynamic", `"inputs":[],"widgets_values":["plain","t"]`, `{"mode":"plain","text":"t"}`},
		"text box":              {"CLIPTextEncode", `"inputs":[],"widgets_values":["a\r\nb"]`, `{"text":"a\nb"}`},
		"nothing in a text box": {"CLIPTextEncode", `"inputs":[],"widgets_values":[null]`, `{"text":""}`},
	} {
		t.Run(name, func(t *testing.T) {
			have, err := json.Marshal(node(t, c.kind, c.fields))
			require.NoError(t, err)
			require.JSONEq(t, c.want, string(have))
			if name == "in their order" {
				require.Contains(t, string(have), "12345678901234567890", "digits are kept")
			}
		})
	}
}

func TestGetAndSetNodes(t *testing.T) {
	g := convert(t, saved(`"link":1`, `"link":3`, "/*more*/", `,{"id":"7","type":"SetNode","inputs":[{"name":"IMAGE","type":"IMAGE","link":2}],"widgets_values":["a"]},
		{"id":8,"type":"GetNode","outputs":[{"type":"IMAGE"}],"widgets_values":["a"]},{"id":9,"type":"SetNode","inputs":[],"widgets_values":["b"]}`, "/*links*/", `,[2,1,0,7,0,"IMAGE"],[3,8,0,2,0,"IMAGE"]`))
	require.JSONEq(t, `["1",0]`, string(g["2"].Inputs["images"]))
	require.Len(t, g, 2)
}

func TestDates(t *testing.T) {
	for prefix, want := range map[string]string{
		"%date:yyyy-MM-dd_hh-mm-ss%":  "2026-03-05_14-07-09",
		"%date:yy/M/d h:m:s%":         "26/3/5 14:7:9",
		"%date:yyy%%":                 "yyy%",
		"100%":                        "100%",
		"%width%x%EmptyImage.height%": "%width%x32",
		"%Keep.filename_prefix%":      "%Keep.filename_prefix%",
	} {
		g := convert(t, saved(`["x"]`, `["`+prefix+`"]`))
		require.Equal(t, `"`+want+`"`, string(g["2"].Inputs["filename_prefix"]), prefix)
	}
}

func TestPrompts(t *testing.T) {
	last := first
	last.Pick = func(n int) int { return n - 1 }
	for text, want := range map[string][2]string{
		`a {b|c} d`:          {"a b d", "a c d"},
		`{a|{b|c}}`:          {"a", "c"},
		`{a|b|}`:             {"a", ""},
		`\{a|b\}`:            {"{a|b}", "{a|b}"},
		`x /* y */ z // end`: {"x  z ", "x  z "},
		`a /*/ b */ c`:       {"a  c", "a  c"},
		`a /* b // c`:        {"a /* b ", "a /* b "},
		"// a /* b\n*/ c":    {"\n*/ c", "\n*/ c"},
		`a/b/`:               {"a/b/", "a/b/"},
		`{open|never closed`: {"open", "never closed"},
		`a } b`:              {"a } b", "a } b"},
		`{a\|b|c}`:           {"a|b", "c"},
		`plain`:              {"plain", "plain"},
	} {
		for i, o := range []editor.Options{first, last} {
			file := saved("/*more*/", fmt.Sprintf(`,{"id":7,"type":"CLIPTextEncode","widgets_values":[%s]}`, quoted(text)))
			raw, err := editor.Convert([]byte(file), classes(t), o)
			require.NoError(t, err)
			require.Equal(t, quoted(want[i]), string(graph(t, raw)["7"].Inputs["text"]), text)
		}
	}
	_, err := editor.Convert([]byte(saved("/*more*/", `,{"id":7,"type":"CLIPTextEncode","widgets_values":["`+strings.Repeat("{", 10_000)+`"]}`)), classes(t), first)
	require.ErrorContains(t, err, "deep in one another")
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// TestBounds: files that would keep the server busy are refused, and soon.
func TestBounds(t *testing.T) {
	var chain, links strings.Builder
	for i := range 20_100 {
		fmt.Fprintf(&chain, `,{"id":%d,"type":"Reroute","inputs":[{"type":"*","link":%d}]}`, 10+i, 10+i)
		fmt.Fprintf(&links, `,[%d,%d,0,%d,0,"*"]`, 10+i, 11+i, 10+i)
	}
	var tower strings.Builder // each level holds the next one ten times
	for i := range 9 {
		nodes := make([]string, 10)
		for k := range nodes {
			nodes[k] = fmt.Sprintf(`{"id":%d,"type":"s%d"}`, k, i+1)
		}
		fmt.Fprintf(&tower, `{"id":"s%d","nodes":[%s]},`, i, strings.Join(nodes, ","))
	}
	var deep strings.Builder
	for i := range 60 {
		fmt.Fprintf(&deep, `{"id":"s%d","nodes":[{"id":1,"type":"s%d"}]},`, i, i+1)
	}
	tall := func(b *strings.Builder) string {
		return saved("/*more*/", `,{"id":7,"type":"s0"}`, "/*top*/", `,"definitions":{"subgraphs":[`+b.String()+`{"id":"end","nodes":[]}]}`)
	}
	large := `{"id":"s0","nodes":[{"id":1,"type":"PreviewAny","widgets_values":["` + strings.Repeat("x", 1<<18) + `"]}]},`
	var many strings.Builder
	for i := range 300 {
		fmt.Fprintf(&many, `,{"id":%d,"type":"s0"}`, 10+i)
	}
	for name, file := range map[string]string{
		"more than":     saved("/*more*/", chain.String(), "/*links*/", links.String()),
		"than 20000":    tall(&tower),
		"nested deeper": tall(&deep),
		"too large":     saved("/*more*/", many.String(), "/*top*/", `,"definitions":{"subgraphs":[`+large+`{"id":"end","nodes":[]}]}`),
	} {
		start := time.Now()
		_, err := editor.Convert([]byte(file), classes(t), first)
		var refused *comfy.GraphError
		require.ErrorAs(t, err, &refused, name)
		require.Contains(t, refused.Message, name)
		require.Less(t, time.Since(start), 30*time.Second, name)
	}
}
