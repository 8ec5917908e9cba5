package comfy

import (
	"fmt"
	"strings"
	"testing"
)

func TestHiddenLinks(t *testing.T) {
	for value, want := range map[string]bool{
		`{"__value__":["1",0]}`: true, `{"__value__":["nowhere",0.5]}`: true, `{"a":1,"__value__":["1",true]}`: true,
		`{"__value__":[1,2]}`: false, `{"__value__":["a","b"]}`: false, `{"__value__":"1"}`: false, `{"a":{"__value__":["1",0]}}`: false,
		`{}`: false, `["1",0]`: false, ``: false,
	} {
		if _, got := HiddenLink([]byte(value)); got != want {
			t.Errorf("%s: %v", value, got)
		}
	}
}

func TestPrefixesThatAreNotServed(t *testing.T) {
	const node = `{"1":{"class_type":"SaveImage","inputs":{"%s":"%s"}}}`
	for _, prefix := range []string{"wait...", "wait.../", "v1..2", "..", "a/b..", `a\nb`, `portrait\n`, `a\rb`} {
		e := refused(t, fmt.Sprintf(node, "filename_prefix", prefix), "does not hand out", "filename_prefix")
		if got := e.NodeErrors["1"].Errors[0].Type; got != "filename_not_served" {
			t.Errorf("%s: type %s", prefix, got)
		}
		parse(t, fmt.Sprintf(node, "text", prefix))
		parse(t, strings.Replace(fmt.Sprintf(node, "filename_prefix", prefix), "SaveImage", "CheckpointSave", 1))
	}
	for _, prefix := range []string{"a", "a.b", "a..b/c", "../c", `a\nb/c`, "%date:yyyy-MM-dd%/x", "ein …", "", "a/b/..", `a..b\\c`} {
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
