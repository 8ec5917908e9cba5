package editor_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/editor"
)

// nodes are the classes that the tests' workflows use, in the shape of 0.3.75's /object_info, and made-up ones.
type nodes map[string]*editor.Class

func (n nodes) Editor(class string) *editor.Class { return n[class] }

func (n nodes) Nearest(class string) []string {
	var near []string
	for _, name := range slices.Sorted(maps.Keys(n)) {
		if strings.EqualFold(name, class) {
			near = append(near, name)
		}
	}
	return near
}

// specs are the declared inputs of each class.
func specs(t testing.TB) map[string]map[string]bool {
	declared := map[string]map[string]bool{}
	for class, raw := range infos(t) {
		var info struct {
			Input map[string]map[string]json.RawMessage `json:"input"`
		}
		require.NoError(t, json.Unmarshal(raw, &info))
		declared[class] = map[string]bool{}
		for _, group := range info.Input {
			for name := range group {
				declared[class][name] = true
			}
		}
	}
	return declared
}

func infos(t testing.TB) map[string]json.RawMessage {
	raw, err := os.ReadFile(filepath.Join("testdata", "object_info.json"))
	require.NoError(t, err)
	var all map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(raw, &all))
	all["Forced"] = json.RawMessage(`{"input":{"required":{"a":["INT",{"forceInput":true}],"seed":["INT",{}],"b":["STRING",{}]}},"output":[]}`)
	all["Dynamic"] = json.RawMessage(`{"input":{"required":{"mode":["COMFY_DYNAMICCOMBO_V3",{"options":[
		{"key":"plain","inputs":{}},
		{"key":"sized","inputs":{"required":{"width":["INT",{}],"image":["IMAGE",{}]},"optional":{"seed":["INT",{"control_after_generate":true}]}}},
		{"key":"deep","inputs":{"required":{"inner":["COMFY_DYNAMICCOMBO_V3",{"options":[{"key":"a","inputs":{"required":{"x":["FLOAT",{}]}}},{"key":"b","inputs":{}}]}],"after":["BOOLEAN",{}]}}}]}],
		"text":["STRING",{}]}},"output":["IMAGE"],"python_module":"comfy_extras.nodes_made_up"}`)
	all["Grow"] = json.RawMessage(`{"input":{"required":{"images":["COMFY_AUTOGROW_V3",{"template":{"input":{"required":{"image":["IMAGE",{}]}},"prefix":"image","min":2,"max":10}}],
		"amount":["INT",{}]}},"output":["IMAGE"],"python_module":"comfy_extras.nodes_made_up"}`)
	all["Compare"] = json.RawMessage(`{"input":{"required":{"compare_view":["IMAGECOMPARE",{}]},"optional":{"image_a":["IMAGE",{}],"image_b":["IMAGE",{}]}},"output":[],"output_node":true,"python_module":"comfy_extras.nodes_made_up"}`)
	all["Shape"] = json.RawMessage(`{"input":{"required":{"ratio":["COMBO",{"options":["1:1","2:1"]}],"megapixels":["FLOAT",{"default":1}],"preview":["RESOLUTION_PREVIEW",{}]}},"output":["INT"],"python_module":"comfy_extras.nodes_made_up"}`)
	all["Choice"] = json.RawMessage(`{"input":{"required":{"one":[["a","b"],{"control_after_generate":true}],"many":["COMBO",{"multiselect":true,"options":["x","y"]}]}},"output":[]}`)
	all["Named"] = json.RawMessage(`{"input":{"required":{"rate":["FLOAT",{}],"format":[["gif"]]}},"output":[],"python_module":"custom_nodes.pack"}`)
	all["Camera"] = json.RawMessage(`{"input":{"required":{"image":["WEBCAM",{}],"width":["INT",{}]}},"output":["IMAGE"],"python_module":"nodes"}`)
	all["Bare"] = json.RawMessage(`{"input":{"required":{"any":["IMAGE"]}},"output":[],"python_module":"custom_nodes.pack"}`)
	return all
}

func classes(t testing.TB) nodes {
	all := nodes{}
	for name, raw := range infos(t) {
		all[name] = editor.ParseClass(name, raw)
		require.NotNil(t, all[name], name)
	}
	return all
}

var first = editor.Options{Pick: func(int) int { return 0 }, Now: time.Date(2026, 3, 5, 14, 7, 9, 0, time.UTC)}

type apiNode struct {
	Class  string                     `json:"class_type"`
	Inputs map[string]json.RawMessage `json:"inputs"`
}

func graph(t testing.TB, raw []byte) map[string]apiNode {
	t.Helper()
	g := map[string]apiNode{}
	require.NoError(t, json.Unmarshal(raw, &g))
	return g
}

func convert(t testing.TB, file string) map[string]apiNode {
	t.Helper()
	raw, err := editor.Convert([]byte(file), classes(t), first)
	require.NoError(t, err)
	_, err = comfy.ParseGraph(raw)
	require.NoError(t, err)
	return graph(t, raw)
}

// TestConvertsAsTheEditorDoes compares with what the editor itself made of the same file (testdata/ui/README.md). It also
// sends what widgets hold that only show something; ComfyUI does not declare them and passes them over.
func TestConvertsAsTheEditorDoes(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "ui", "*.api.json"))
	require.NoError(t, err)
	newer, err := filepath.Glob(filepath.Join("testdata", "ui", "*.api.json")) // of made-up classes in the newest shape
	require.NoError(t, err)
	files = append(files, newer...)
	require.Len(t, files, 35)
	declared := specs(t)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".api.json"), func(t *testing.T) {
			raw, err := os.ReadFile(f)
			require.NoError(t, err)
			saved, err := os.ReadFile(strings.TrimSuffix(f, ".api.json") + ".json")
			require.NoError(t, err)
			want, have := graph(t, raw), convert(t, string(saved))
			require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(have)))
			for id, w := range want {
				require.Equal(t, w.Class, have[id].Class, id)
				for name, value := range w.Inputs {
					if declared[w.Class][name] || strings.Contains(name, ".") || value[0] == '[' {
						require.JSONEq(t, string(value), string(have[id].Inputs[name]), "%s of %s", name, id)
					}
				}
				for name := range have[id].Inputs {
					require.Contains(t, w.Inputs, name, id)
				}
			}
		})
	}
}

// saved is a workflow of an image and its saver, changed by replacing parts of its text.
func saved(replace ...string) string {
	replace = append(replace, "/*more*/", "", "/*links*/", "", "/*top*/", "") // the first of two counts
	return strings.NewReplacer(replace...).Replace(`{"nodes":[
		{"id":1,"type":"EmptyImage","mode":0,"inputs":[],"outputs":[{"name":"IMAGE","type":"IMAGE"}],"widgets_values":[64,32,1,0]},
		{"id":2,"type":"SaveImage","title":"Keep","mode":0,"inputs":[{"name":"images","type":"IMAGE","link":1}],"widgets_values":["x"]}/*more*/],
		"links":[[1,1,0,2,0,"IMAGE"]/*links*/],"version":0.4/*top*/}`)
}

func TestRefusesWithTheNode(t *testing.T) {
	with := func(kind, values string) string {
		return saved("/*more*/", fmt.Sprintf(`,{"id":7,"type":%q,"title":"Odd one","inputs":[],"outputs":[{"type":"*"}],"widgets_values":%s}`, kind, values))
	}
	sub := func(definition string, host ...string) string {
		return saved("/*more*/", `,{"id":7,"type":"sub","inputs":[]`+strings.Join(host, "")+`}`, "/*top*/", `,"definitions":{"subgraphs":[`+definition+`]}`)
	}
	for name, c := range map[string]struct {
		file, node string
		words      []string
	}{
		"too few values":          {saved("[64,32,1,0]", "[64,32]"), "1", []string{"EmptyImage", "2 saved values", "width, height, batch_size, color"}},
		"too many values":         {saved("[64,32,1,0]", "[64,32,1,0,5]"), "1", []string{"5 saved values"}},
		"no values":               {saved(`"widgets_values":[64,32,1,0]`, `"x":1`), "1", []string{"0 saved values"}},
		"no control":              {with("ImageAddNoise", `[1,0.5,3]`), "7", []string{"3 saved values"}},
		"unknown class":           {with("emptyimage", `[]`), "7", []string{`emptyimage "Odd one"`, "does not have this class", "did you mean EmptyImage"}},
		"script's widgets":        {with("Bare", `[{"lora":"x"}]`), "7", []string{"do not fit", "none"}},
		"camera":                  {with("Camera", `[1,2]`), "7", []string{`"image" (WEBCAM)`}},
		"group node":              {with("workflow>mine", `[]`), "7", []string{"group node", "Convert to nodes"}},
		"value by name missing":   {with("Named", `{"rate":8}`), "7", []string{`no value for its input "format"`}},
		"other version":           {saved(`"inputs":[]`, `"inputs":[{"name":"wide","type":"INT","widget":{"name":"wide"},"link":9}]`), "1", []string{`a widget "wide"`}},
		"link to nowhere":         {saved(`"link":1`, `"link":5`), "2", []string{`"images"`, "no link 5"}},
		"link from nowhere":       {saved(`[1,1,0,2`, `[1,8,0,2`), "2", []string{"node 8"}},
		"circle":                  {saved(`"link":1`, `"link":3`, "/*more*/", `,{"id":7,"type":"Reroute","inputs":[{"name":"","type":"*","link":4}]}`, "/*links*/", `,[3,7,0,2,0,"*"],[4,7,0,7,0,"*"]`), "2", []string{"circle through node 7"}},
		"muted reroute":           {saved(`"link":1`, `"link":3`, "/*more*/", `,{"id":7,"type":"Reroute","mode":2,"inputs":[{"name":"","type":"*","link":1}]}`, "/*links*/", `,[3,7,0,2,0,"*"]`), "2", []string{"muted"}},
		"no such output":          {saved(`"link":1`, `"link":3`, "/*more*/", `,{"id":7,"type":"ImageInvert","mode":4,"inputs":[{"name":"image","type":"IMAGE","link":1}]}`, "/*links*/", `,[3,7,6,2,0,"IMAGE"]`), "2", []string{"bypassed node 7 has no output 6"}},
		"no SetNode":              {saved(`"link":1`, `"link":3`, "/*more*/", `,{"id":7,"type":"GetNode","inputs":[],"widgets_values":["a"]}`, "/*links*/", `,[3,7,0,2,0,"*"]`), "2", []string{`GetNode 7 asks for "a"`}},
		"subgraph in itself":      {sub(`{"id":"sub","name":"S","nodes":[{"id":1,"type":"sub"}],"links":[]}`), "7:1", []string{"contains itself"}},
		"subgraph's names":        {sub(`{"id":"sub","name":"S","inputs":[{"name":"a"},{"name":"a"}],"nodes":[],"links":[]}`), "7", []string{`subgraph S`, `called "a"`}},
		"subgraph's values":       {sub(`{"id":"sub","nodes":[],"links":[]}`, `,"widgets_values":[1]`), "7", []string{"1 saved values for the 0 widgets"}},
		"subgraph's proxy":        {sub(`{"id":"sub","nodes":[],"links":[]}`, `,"widgets_values":[5],"properties":{"proxyWidgets":[["9","width"]]}`), "7", []string{`"width"`}},
		"inside a subgraph":       {sub(`{"id":"sub","nodes":[{"id":3,"type":"Gone"}],"links":[]}`), "7:3", []string{"does not have this class"}},
		"primitive with patterns": {with("PrimitiveNode", `["%date:yyyy%"],"properties":{"Run widget replace on values":true}`), "7", []string{"Run widget replace"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := editor.Convert([]byte(c.file), classes(t), first)
			var refused *comfy.GraphError
			require.ErrorAs(t, err, &refused)
			require.True(t, refused.UI)
			require.Contains(t, refused.NodeErrors, c.node, refused.Message)
			require.Contains(t, refused.Message, "Node "+c.node)
			require.Contains(t, refused.Message, "Export (API)")
			for _, word := range c.words {
				require.Contains(t, refused.Message, word)
			}
		})
	}
}

func TestRefusesFilesThatItCannotRead(t *testing.T) {
	for name, file := range map[string]string{
		"id twice":            saved(`"id":2`, `"id":1`),
		"no type":             saved(`"type":"EmptyImage",`, ""),
		"no id":               saved(`"id":1,`, ""),
		"subgraph twice":      saved("/*top*/", `,"definitions":{"subgraphs":[{"id":"a"},{"id":"a"}]}`),
		"subgraph without id": saved("/*top*/", `,"definitions":{"subgraphs":[{}]}`),
		"Use Everywhere":      saved("/*top*/", `,"extra":{"ue_links":[{"downstream":1}]}`),
		"a list":              `[]`,
	} {
		_, err := editor.Convert([]byte(file), classes(t), first)
		var refused *comfy.GraphError
		require.ErrorAs(t, err, &refused, name)
		require.Contains(t, refused.Message, "Export (API)", name)
	}
}
