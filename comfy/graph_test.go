package comfy

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// parse fails the test unless the graph is accepted.
func parse(t *testing.T, graph string) *Graph {
	t.Helper()
	g, err := ParseGraph([]byte(graph))
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	return g
}

// refused fails the test unless the graph is refused with all of these words.
func refused(t *testing.T, graph string, words ...string) *GraphError {
	t.Helper()
	g, err := ParseGraph([]byte(graph))
	if err == nil {
		t.Fatalf("accepted: %.200s", g.JSON())
	}
	var ge *GraphError
	if !errors.As(err, &ge) {
		t.Fatalf("not a *GraphError: %T", err)
	}
	for _, w := range words {
		if !strings.Contains(ge.Message, w) {
			t.Errorf("the message lacks %q: %s", w, ge.Message)
		}
	}
	return ge
}

func TestParseGraphKeepsOrderDigitsAndEscapes(t *testing.T) {
	g := parse(t, ` { "10" : {"inputs":{"seed": 18446744073709551615 , "cfg":1.50,"e":1E-7,"t":"\u00e4\/<b>","l":[ 1 , {"b" : 2, "a":1} ]},
		"class_type":"K","_meta":{"title":"my «K»"}}, "9":{"class_type":"S","inputs":{"images":["10", 0]}}}`)
	want := `{"10":{"inputs":{"seed":18446744073709551615,"cfg":1.50,"e":1E-7,"t":"\u00e4\/<b>","l":[1,{"b":2,"a":1}]},"class_type":"K","_meta":{"title":"my «K»"}},"9":{"class_type":"S","inputs":{"images":["10",0]}}}`
	if got := string(g.JSON()); got != want {
		t.Errorf("JSON:\n got %s\nwant %s", got, want)
	}
	if got := string(g.Nodes["10"].Inputs["seed"]); got != "18446744073709551615" {
		t.Errorf("seed: %s", got)
	}
	if n := g.Nodes["10"]; n.Title != "my «K»" || n.ClassType != "K" {
		t.Errorf("node: %+v", n)
	}
}

func TestParseGraphTakesAString(t *testing.T) {
	graph := `{"1":{"class_type":"S","inputs":{"t":"a\"b\n😀"}}}`
	quoted, err := json.Marshal(graph)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"string": string(quoted), "escaped": `"\u007b\"1\":{\"class_type\":\"S\",\"inputs\":{\"t\":\"a\\\"b\\n\ud83d\ude00\"}}}"`,
		"BOM": "\uFEFF" + graph, "BOM inside": `"\ufeff` + string(quoted[1:]),
	} {
		if g := parse(t, body); string(g.JSON()) != graph {
			t.Errorf("%s: %s", name, g.JSON())
		}
	}
	refused(t, `"\"{}\""`, "is a string", "must be a JSON object")
	refused(t, `"{" x`, "more follows")
	refused(t, `"\ud83d"`, "surrogate")
}

func TestParseGraphRefuses(t *testing.T) {
	node := func(inputs string) string { return `{"1":{"class_type":"A","inputs":{` + inputs + `}}}` }
	deep := func(n int) string {
		return node(`"x":` + strings.Repeat("[", n-3) + strings.Repeat("]", n-3))
	}
	many := func(n int) string {
		b := strings.Builder{}
		for i := range n {
			b.WriteString(`,"` + string(rune('a'+i%26)) + strings.Repeat("x", i/26) + `":0`)
		}
		return "{" + b.String()[1:] + "}"
	}
	for name, c := range map[string]struct {
		graph string
		words []string
	}{
		"empty body":         {"", []string{"empty"}},
		"null":               {" null ", []string{"null", "API format"}},
		"list":               {"[]", []string{"a list"}},
		"number":             {"5", []string{"a number"}},
		"bool":               {"true", []string{"true or false"}},
		"no node":            {"{}", []string{"empty", "prompt_no_outputs"}},
		"cut":                {`{"1":{"class_type"`, []string{"line 1, column 19", "colon"}},
		"cut string":         {`{"1":{"class_type":"A`, []string{"breaks off inside a string"}},
		"comma":              {"{\"1\":{\n\"a\":1,\n}}", []string{"line 3, column 1", `in 1`, "'}'"}},
		"trailing":           {node("") + "{}", []string{"more follows"}},
		"single quotes":      {`{'1':{}}`, []string{`'\''`}},
		"bare word":          {node(`"a":tru`), []string{"in 1.inputs.a", "true, false or null"}},
		"undefined":          {node(`"a":undefined`), []string{"'u' where a value should begin"}},
		"duplicate node":     {`{"1":{"class_type":"A","inputs":{}},"1":{"class_type":"B","inputs":{}}}`, []string{`"1" stands twice`}},
		"duplicate input":    {node(`"a":1,"b":[{"x":1,"\u0078":2}]`), []string{"in 1.inputs.b[0].x", `"x" stands twice`}},
		"ninth key twice":    {node(`"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"a":1`), []string{`"a" stands twice`}},
		"NaN":                {node(`"a":NaN`), []string{"in 1.inputs.a", "finite"}},
		"Infinity":           {node(`"a":[0,Infinity]`), []string{"in 1.inputs.a[1]", "finite"}},
		"-Infinity":          {node(`"a":-Infinity`), []string{"finite"}},
		"1e999":              {node(`"a":1e999`), []string{"1e999", "infinite"}},
		"-1e999 nested":      {node(`"a":{"b":[-1e999]}`), []string{"in 1.inputs.a.b[0]", "infinite"}},
		"400 digits and .0":  {node(`"a":` + strings.Repeat("9", 400) + ".0"), []string{"infinite"}},
		"5000 digits":        {node(`"a":` + strings.Repeat("9", 5000)), []string{"5000 digits"}},
		"leading zero":       {node(`"a":01`), []string{"not a number"}},
		"plus":               {node(`"a":+1`), []string{"'+'"}},
		"control character":  {node("\"a\":\"\n\""), []string{`'\n'`, "escaped"}},
		"bad escape":         {node(`"a":"\x41"`), []string{"backslash"}},
		"bad unicode escape": {node(`"a":"\u00g0"`), []string{"backslash"}},
		"invalid UTF-8":      {node("\"a\":\"\xff\""), []string{"UTF-8", "0xFF", "offset 38"}},
		"half pair in a key": {node(`"\ud800":1`), []string{"surrogate"}},
		"101 deep":           {deep(101), []string{"deeper than 100"}},
		"20001 nodes":        {many(20_001), []string{"more than 20000 nodes"}},
		"node a list":        {`{"1":[]}`, []string{`Node "1" is not an object`}},
		"node a string":      {`{"1":"class_type"}`, []string{`Node "1" is not an object`}},
		"no class":           {`{"7":{"inputs":{}}}`, []string{`node "7" is missing the class_type`}},
		"class a number":     {`{"7":{"class_type":5,"inputs":{}}}`, []string{"class_type"}},
		"class empty":        {`{"7":{"class_type":"","inputs":{}}}`, []string{"class_type"}},
		"no inputs":          {`{"7":{"class_type":"A"}}`, []string{`Node "7" (A) has no object "inputs"`}},
		"inputs null":        {`{"7":{"class_type":"A","inputs":null}}`, []string{"no object"}},
		"inputs a list":      {`{"7":{"class_type":"A","inputs":[]}}`, []string{"no object"}},
		"wrapped":            {`{"prompt":{"1":{"class_type":"A","inputs":{}}},"client_id":"x"}`, []string{"POST /prompt", `under "prompt"`}},
		"wrapped otherwise":  {`{"workflow":{"1":{"class_type":"A","inputs":{}}}}`, []string{`under "workflow"`}},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.graph, c.words...) })
	}
	parse(t, deep(100))
}

func TestParseGraphAccepts(t *testing.T) {
	for name, graph := range map[string]string{
		"a node called prompt":     `{"prompt":{"class_type":"A","inputs":{}}}`,
		"a node called nodes":      `{"nodes":{"class_type":"A","inputs":{}},"links":{"class_type":"A","inputs":{}}}`,
		"an empty ID":              `{"":{"class_type":"A","inputs":{"":1}}}`,
		"half a pair in a text":    `{"1":{"class_type":"A","inputs":{"t":"cut \ud83d"}}}`,
		"class_type written oddly": `{"1":{"class\u005ftype":"A","\u0069nputs":{}}}`,
		"more beside the inputs":   `{"1":{"class_type":"A","inputs":{},"_meta":null,"is_changed":[1]}}`,
		"underflow":                `{"1":{"class_type":"A","inputs":{"a":1e-999,"b":-0,"c":1e308}}}`,
		"names of Python's":        `{"1":{"class_type":"A","inputs":{"a":"NaN Infinity 1e999"}}}`,
	} {
		t.Run(name, func(t *testing.T) { parse(t, graph) })
	}
}

func TestParseGraphTellsUIFormat(t *testing.T) {
	for _, file := range []string{"ui_simple.json", "ui_simple_no_id.json"} {
		ge := refused(t, corpusFile(t, file), "Workflow > Export (API)", "Save (API Format)")
		if !ge.UI {
			t.Errorf("%s: UI is false", file)
		}
	}
	if ge := refused(t, `{"nodes":[],"links":{}}`, "Export (API)"); !ge.UI {
		t.Error("links as an object: UI is false")
	}
	if refused(t, `{"1":[]}`).UI {
		t.Error("UI is true of a mere wrong node")
	}
}

func TestNodeErrorsNameTheNode(t *testing.T) {
	ge := refused(t, `{"10":{"class_type":"A"},"9":{"inputs":{}}}`)
	if len(ge.NodeErrors) != 2 || ge.NodeErrors["10"].ClassType != "A" || len(ge.NodeErrors["9"].Errors) != 1 {
		t.Errorf("node errors: %+v", ge.NodeErrors)
	}
	if nine, ten := strings.Index(ge.Message, `"9"`), strings.Index(ge.Message, `"10"`); nine < 0 || ten < nine {
		t.Errorf("not in natural order: %s", ge.Message)
	}
}

func TestIDsAreInNaturalOrder(t *testing.T) {
	want := []string{"01", "1", "2", "10", "57", "57:8", "57:10", "100", "a", "a2", "a10"}
	graph := map[string]any{}
	for _, id := range want {
		graph[id] = map[string]any{"class_type": "A", "inputs": map[string]any{}}
	}
	body, err := json.Marshal(graph)
	if err != nil {
		t.Fatal(err)
	}
	if got := parse(t, string(body)).IDs(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func corpusFile(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
