package catalog

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHiddenLinks: a link in __value__ is refused where ComfyUI would follow it: of an input that is declared, and whose
// values it takes as they are. PreviewAny's own made a circle that ended as an empty success (seen on 0.3.75).
func TestHiddenLinks(t *testing.T) {
	c := fixture(t)
	for name, k := range map[string]struct{ inputs, refused string }{
		"any type":       {`"source":{"__value__":["n",0]}`, "bad_linked_input"},
		"nowhere":        {`"source":{"__value__":["gone",1.5]}`, "bad_linked_input"},
		"not declared":   {`"source":"a","foo":{"__value__":["n",0]}`, ""},
		"a list of two":  {`"source":{"__value__":["a","b"]}`, ""},
		"deeper, a dict": {`"source":{"a":{"__value__":["n",0]}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bad := c.Check(graph(t, `{"n":{"class_type":"PreviewAny","inputs":{`+k.inputs+`}}}`), nil)
			if k.refused == "" {
				require.Nil(t, bad)
				return
			}
			require.Equal(t, k.refused, bad["n"].Errors[0].Type)
			require.Contains(t, bad.Summary(), "hides a link")
		})
	}
}
