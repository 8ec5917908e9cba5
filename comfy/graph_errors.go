package comfy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// MaxReported bounds the nodes that one refusal names; a person fixes one at a time.
const MaxReported = 100

// WholeGraph is the key in [NodeErrors] of a reason that no node is to blame for, such as that there is no output node
// (ComfyUI: prompt_no_outputs). ComfyUI itself gives such reasons without node errors.
const WholeGraph = ""

// Summary is the reasons in one paragraph, for an error message: node by node in natural order, the first few in full.
func (n NodeErrors) Summary() string {
	const most = 5
	var messages []string
	for _, id := range slices.SortedFunc(maps.Keys(n), CompareIDs) {
		for _, e := range n[id].Errors {
			if !slices.Contains(messages, e.Message) {
				messages = append(messages, e.Message)
			}
		}
	}
	if more := len(messages) - most; more > 0 {
		text := fmt.Sprintf("%d more reasons of this kind stand in node_errors", more)
		if more == 1 {
			text = "One more reason of this kind stands in node_errors"
		}
		messages = append(messages[:most], text)
	}
	return strings.Join(messages, ". ") + "."
}

func quote(s string) string { return strconv.Quote(clip(s)) }
