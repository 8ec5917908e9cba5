package comfyui

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
)

func TestScrub(t *testing.T) {
	for in, want := range map[string]string{
		"":                    "",
		"plain words, 3/4 of": "plain words, 3/4 of",
		"[Errno 2] No such file or directory: '/srv/comfyui/input/a.png'": "[Errno 2] No such file or directory: 'a.png'",
		`cannot open C:\ComfyUI\models\x.safetensors now`:                 "cannot open x.safetensors now",
		"see https://huggingface.co/a/b/c.bin for more":                   "see https://huggingface.co/a/b/c.bin for more",
		"sub/folder/file.png is missing":                                  "sub/folder/file.png is missing",
		"(/a/b/c) [/d/e/f] =/g/h/i":                                       "(c) [f] =i",
		"shape [1, 2] / [3]":                                              "shape [1, 2] / [3]",
		"/etc is kept, it is no file below another":                       "/etc is kept, it is no file below another",
		"Traceback (most recent call last):\n  File \"/srv/a.py\", line 5, in f\n    raise ValueError(1)\nValueError: 1": "ValueError: 1",
	} {
		require.Equal(t, want, Scrub(in), in)
	}
	require.Len(t, []rune(Scrub(strings.Repeat("ä", 5000))), maxMessage+1)
}

func TestNodeErrorsOfComfyUI(t *testing.T) {
	g := graph(t, `{"1":{"class_type":"EmptyImage","inputs":{}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0]}}}`)
	a, err := ParseAnswer([]byte(`{"error":{"type":"prompt_outputs_failed_validation","message":"Prompt outputs failed validation","details":""},"node_errors":{
		"1":{"class_type":"EmptyImage","dependent_outputs":["2"],"errors":[
			{"type":"value_smaller_than_min","message":"Value 0 smaller than min of 1","details":"width","extra_info":{"input_name":"width","input_config":["INT",{"default":512,"min":1,"max":18446744073709551615}],"received_value":NaN}},
			{"type":"value_not_in_list","message":"Value not in list","details":"s: 'x' not in (list of length 3)","extra_info":{"input_name":"s","input_config":[["a","b","c"],{}],"received_value":"/srv/models/x.pt"}},
			{"type":"invalid_input_type","message":"m","details":"d","extra_info":{"received_value":18446744073709551615,"exception_message":"e"}}]},
		"2":{"errors":[{"type":"exception_during_validation","message":"Exception when validating node","details":"'7'","extra_info":{"exception_type":"KeyError","traceback":["  File \"/srv/comfyui/execution.py\", line 1\n"]}}]},
		"3":"nonsense"}}`))
	require.NoError(t, err)
	e := Refused(g, a)
	require.Equal(t, comfy.InvalidWorkflow, e.Code)
	require.Equal(t, "node 1 (EmptyImage): Value 0 smaller than min of 1: width; "+
		"node 2 (SaveImage): ComfyUI could not check this node; most often one of its links is wrong: '7'; node 3 (): ComfyUI refused this node without saying why", e.Message)
	out, err := json.Marshal(e.NodeErrors)
	require.NoError(t, err)
	require.NotContains(t, string(out), "/srv")
	require.NotContains(t, string(out), "traceback")
	one := e.NodeErrors["1"].Errors
	require.Equal(t, []string{"2"}, e.NodeErrors["1"].DependentOutputs)
	require.JSONEq(t, `{"input_name":"width","received_value":null,"allowed":{"min":1,"max":18446744073709551615}}`, asJSON(t, one[0].ExtraInfo))
	require.JSONEq(t, `{"input_name":"s","received_value":"x.pt","allowed":["a","b","c"]}`, asJSON(t, one[1].ExtraInfo))
	require.Contains(t, asJSON(t, one[2].ExtraInfo), "18446744073709551615")

	for body, says := range map[string]string{
		`{"error":{"type":"prompt_no_outputs","message":"Prompt has no outputs","details":""},"node_errors":[]}`:                                  "ComfyUI refused the workflow: Prompt has no outputs",
		`{"error":{"type":"invalid_prompt","message":"Cannot execute because node X does not exist.","details":"Node ID '#3'"},"node_errors":{}}`: "ComfyUI refused the workflow: Cannot execute because node X does not exist: Node ID '#3'",
		`{"error":"a word","node_errors":{}}`: "ComfyUI refused the workflow: a word",
		`{"node_errors":{}}`:                  "ComfyUI refused the workflow without saying why",
	} {
		a, err := ParseAnswer([]byte(body))
		require.NoError(t, err)
		require.Equal(t, says, Refused(g, a).Message)
	}
}

func graph(t *testing.T, nodes string) *comfy.Graph {
	g, err := comfy.ParseGraph([]byte(nodes))
	require.NoError(t, err)
	return g
}

func asJSON(t *testing.T, v any) string {
	out, err := json.Marshal(v)
	require.NoError(t, err)
	return string(out)
}

func TestFailedHistory(t *testing.T) {
	read := func(status string) *History {
		e := new(History)
		require.NoError(t, json.Unmarshal([]byte(`{"outputs":{},"status":`+status+`}`), e))
		return e
	}
	require.Equal(t, comfy.NodeFailed, failed(read(`{"status_str":"error","messages":[]}`)).Code)
	require.Equal(t, comfy.Canceled, failed(read(`{"status_str":"error","messages":[["execution_interrupted",{"node_id":"3","node_type":"K"}]]}`)).Code)
	require.Equal(t, comfy.NodeFailed, failed(read(`{"status_str":"error","messages":[["x"],["execution_error",7],null]}`)).Code)
}

func TestAllCached(t *testing.T) {
	nodes := `{"a":{"class_type":"X","inputs":{}},"b":{"class_type":"X","inputs":{"i":["a",0]}},"c":{"class_type":"X","inputs":{"i":["b",0]}},
		"s":{"class_type":"S","inputs":{"i":["c",0]}},"t":{"class_type":"S","inputs":{"i":["s",0],"j":["a",0]}},"alone":{"class_type":"X","inputs":{}}}`
	for name, c := range map[string]struct {
		outputs, cached []string
		want            bool
	}{
		"all":                          {[]string{"s"}, []string{"a", "b", "c"}, true},
		"what stands behind is enough": {[]string{"s"}, []string{"c"}, true},
		"none":                         {[]string{"s"}, nil, false},
		"the last ran":                 {[]string{"s"}, []string{"a", "b"}, false},
		"through another output":       {[]string{"s", "t"}, []string{"a", "c"}, true},
		"one branch ran":               {[]string{"s", "t"}, []string{"c"}, false},
		"nothing to cache":             {[]string{"alone"}, []string{"alone"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, NewPlan(graph(t, nodes), c.outputs).AllCached(c.cached))
		})
	}
}
