package comfy

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestRequestCheck(t *testing.T) {
	graph := json.RawMessage(`{"1":{"class_type":"A","inputs":{}}}`)
	ref := "inputs/alice/" + strings.Repeat("a", 64)
	good := []Request{
		{Workflow: graph},
		{WorkflowRef: ref, TimeoutSeconds: MaxTimeoutSeconds, Priority: 5, GPU: "H100", Metadata: map[string]string{"shot": "12"}},
		{Workflow: graph, Images: []Input{{Name: "a.png", Ref: ref}, {Name: "b.png", Ref: ref, SHA256: strings.Repeat("a", 64), Size: 1}}},
	}
	for _, r := range good {
		if err := r.Check(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	labels := map[string]string{}
	for _, k := range strings.Split("abcdefghijklmnopq", "") {
		labels[k] = "x"
	}
	long := map[string]string{}
	for _, k := range strings.Split("abcdefghij", "") {
		long[k] = strings.Repeat("x", 250)
	}
	for want, r := range map[string]Request{
		"either workflow or workflow_ref":   {Workflow: graph, WorkflowRef: ref},
		"give either":                       {},
		"POST /inputs":                      {Workflow: make(json.RawMessage, MaxInlineWorkflow+1)},
		"workflow and extra_pnginfo":        {Workflow: make(json.RawMessage, MaxInlineWorkflow), ExtraPNGInfo: make(json.RawMessage, MaxInlineWorkflow)},
		"at most 128 are allowed":           {Workflow: graph, Images: make([]Input, 129)},
		"timeout_seconds is 86401":          {Workflow: graph, TimeoutSeconds: MaxTimeoutSeconds + 1},
		"start_timeout_seconds is -1":       {Workflow: graph, StartTimeoutSeconds: -1},
		"start_timeout_seconds is 604801":   {Workflow: graph, StartTimeoutSeconds: MaxStartTimeoutSeconds + 1},
		"priority is 6":                     {Workflow: graph, Priority: 6},
		"no name of a GPU":                  {Workflow: graph, GPU: "H 100"},
		"images[0]: name is missing":        {Workflow: graph, Images: []Input{{Ref: ref}}},
		"images[0]: ref is missing":         {Workflow: graph, Images: []Input{{Name: "a.png"}}},
		"images[0]: sha256 is not":          {Workflow: graph, Images: []Input{{Name: "a.png", Ref: ref, SHA256: "../../x"}}},
		"metadata has 17 entries":           {Workflow: graph, Metadata: labels},
		"holds an equals sign":              {Workflow: graph, Metadata: map[string]string{"a=b": "c"}},
		"have 255 bytes together":           {Workflow: graph, Metadata: map[string]string{"a": strings.Repeat("x", 254)}},
		"holds the character":               {Workflow: graph, Metadata: map[string]string{"a": "♡"}},
		"have more than 2048 bytes":         {Workflow: graph, Metadata: long},
		"timeout_seconds is -1; it must be": {Workflow: graph, TimeoutSeconds: -1},
	} {
		if err := r.Check(); err == nil || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
