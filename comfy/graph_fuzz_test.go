package comfy

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func FuzzParseGraph(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("..", "testdata", "*.json"))
	if err != nil || len(files) < 40 {
		f.Fatalf("the corpus is not at ../testdata: %d files, %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, s := range []string{
		`"{\"1\":{\"class_type\":\"A\",\"inputs\":{}}}"`, `{"1":{"class_type":"A","inputs":{"a":["1",true],"b":1e5,"\u00e4":"\ud83d"}}}`,
		`{"1":{"class_type":"A","inputs":{"a":[["1",0],{"x":[]}],"b":{"__value__":[1,2]}},"_meta":{"title":"\n"}}}`, "\uFEFF{}", `{"a":{"b":`, "[[[[[",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		g, err := ParseGraph(data)
		if !bytes.Equal(before, data) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without a message")
			}
			return
		}
		if !json.Valid(g.JSON()) {
			t.Fatalf("not JSON: %q", g.JSON())
		}
		again, err := ParseGraph(g.JSON())
		if err != nil {
			t.Fatalf("refused the second time: %v", err)
		}
		if again.Digest() != g.Digest() || !bytes.Equal(again.JSON(), g.JSON()) {
			t.Fatalf("differs the second time: %q", g.JSON())
		}
		if !bytes.Equal(g.Rewrite(nil, nil), g.JSON()) {
			t.Fatalf("Rewrite changes what it was not asked to: %q", g.Rewrite(nil, nil))
		}
		if g.BrokenLinks(nil) == nil {
			for _, l := range g.Links() {
				if g.Nodes[l.From] == nil {
					t.Fatalf("a link to nowhere: %+v", l)
				}
			}
		}
		// The standard library's reading is the reference for what the values are.
		var nodes map[string]map[string]json.RawMessage
		if err := json.Unmarshal(g.JSON(), &nodes); err != nil || len(nodes) != len(g.Nodes) || len(nodes) != len(g.IDs()) {
			t.Fatalf("encoding/json reads %d nodes, ParseGraph %d: %v", len(nodes), len(g.Nodes), err)
		}
		for id, n := range nodes {
			var class string
			var inputs map[string]json.RawMessage
			if json.Unmarshal(n["class_type"], &class) != nil || json.Unmarshal(n["inputs"], &inputs) != nil {
				t.Fatalf("node %q cannot be read", id)
			}
			if g.Nodes[id] == nil || g.Nodes[id].ClassType != class || len(g.Nodes[id].Inputs) != len(inputs) {
				t.Fatalf("node %q differs", id)
			}
			for name, v := range inputs {
				if !bytes.Equal(v, g.Nodes[id].Inputs[name]) {
					t.Fatalf("node %q input %q: %q against %q", id, name, g.Nodes[id].Inputs[name], v)
				}
			}
		}
	})
}
