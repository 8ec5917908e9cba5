package comfy

import (
	"fmt"
	"strings"
	"testing"
)

// A link in __value__ is none to ComfyUI's validation and one to its execution: of a node that is declared to take any value
// it made a circle that ended as an empty success (seen on 0.3.75).
func TestHiddenLinks(t *testing.T) {
	const node = `{"1":{"class_type":"PreviewAny","inputs":{"source":%s}}}`
	for _, hidden := range []string{`{"__value__":["1",0]}`, `{"__value__":["nowhere",0.5]}`, `{"a":1,"__value__":["1",true]}`} {
		e := refused(t, fmt.Sprintf(node, hidden), "hides a link", `"source"`)
		if got := e.NodeErrors["1"].Errors[0].Type; got != "bad_linked_input" {
			t.Errorf("%s: type %s", hidden, got)
		}
	}
	for _, value := range []string{`{"__value__":[1,2]}`, `{"__value__":["a","b"]}`, `{"__value__":"1"}`, `{"a":{"__value__":["1",0]}}`, `{}`} {
		parse(t, fmt.Sprintf(node, value))
	}
}

func TestPrefixesThatAreNotServed(t *testing.T) {
	const node = `{"1":{"class_type":"SaveImage","inputs":{"%s":"%s"}}}`
	for _, prefix := range []string{"wait...", "v1..2", "..", "a/b..", `a\nb`, `portrait\n`, `a\rb`} {
		e := refused(t, fmt.Sprintf(node, "filename_prefix", prefix), "does not hand out", "filename_prefix")
		if got := e.NodeErrors["1"].Errors[0].Type; got != "filename_not_served" {
			t.Errorf("%s: type %s", prefix, got)
		}
		parse(t, fmt.Sprintf(node, "text", prefix))
	}
	for _, prefix := range []string{"a", "a.b", "a..b/c", "../c", `a\nb/c`, "%date:yyyy-MM-dd%/x", "ein …", ""} {
		parse(t, fmt.Sprintf(node, "filename_prefix", prefix))
	}
}

func TestReadable(t *testing.T) {
	got, err := Readable([]byte(` {"workflow": [1, 2.0, "\u00e4"] } `))
	if err != nil || string(got) != `{"workflow":[1,2.0,"\u00e4"]}` {
		t.Fatalf("%s, %v", got, err)
	}
	for name, raw := range map[string]string{
		"too deep":        strings.Repeat(`{"a":`, MaxDepth+1) + "1" + strings.Repeat("}", MaxDepth+1),
		"too many digits": `{"a":` + strings.Repeat("9", 4301) + `}`,
		"infinite":        `{"a":1e999}`,
		"twice":           `{"a":1,"a":2}`,
		"no UTF-8":        "{\"a\":\"\xff\"}",
		"no JSON":         `{"a":}`,
	} {
		if _, err := Readable([]byte(raw)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
