package comfy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func isOut(class string) bool { return class == "Out" }

func TestLinksAreWhatComfyUITakesForLinks(t *testing.T) {
	// Every value was sent to ComfyUI 0.3.75 as an undeclared input: what is a link here ends its execution thread
	// when node "z" does not exist; what is none runs.
	for value, want := range map[string]bool{
		`["z",0]`: true, `["z",0.5]`: true, `["z",-1]`: true, `["z",true]`: true, `["z",false]`: true, `["\u007a",0]`: true,
		`[9,0]`: false, `[["z"],0]`: false, `["z","y"]`: false, `["z",null]`: false, `["z",{"a":0}]`: false, `["z",[0]]`: false,
		`["z",0,1]`: false, `["z"]`: false, `[]`: false, `"z"`: false, `{"a":["z",0]}`: false, `[["z",0]]`: false, `{"__value__":["z",0]}`: false,
	} {
		g := parse(t, `{"1":{"class_type":"Out","inputs":{"foo":`+value+`}}}`)
		links := g.Links()
		if (len(links) == 1) != want {
			t.Errorf("%s: links %v", value, links)
		}
		if want && (links[0].From != "z" || links[0].Node != "1" || links[0].Input != "foo") {
			t.Errorf("%s: %+v", value, links[0])
		}
		if broken := g.BrokenLinks(isOut); (len(broken) == 1) != want {
			t.Errorf("%s: broken %v", value, broken)
		}
	}
	for slot, want := range map[string]int{"0": 0, "-2": -2, "true": 1, "false": 0} {
		if i, ok := (Link{Slot: slot}).Index(); i != want || !ok {
			t.Errorf("slot %s: %d %v", slot, i, ok)
		}
	}
	if _, ok := (Link{Slot: "0.0"}).Index(); ok {
		t.Error("slot 0.0 is no index")
	}
}

func TestBrokenLinks(t *testing.T) {
	for name, c := range map[string]struct {
		graph   string
		nodes   []string // with errors, given the output nodes
		unknown []string // with errors, when nobody knows them
		words   []string
	}{
		"sound": {graph: `{"1":{"class_type":"A","inputs":{}},"2":{"class_type":"Out","inputs":{"a":["1",0]}}}`},
		"missing node, upstream": {
			graph: `{"1":{"class_type":"A","inputs":{"foo":["99",0]}},"2":{"class_type":"Out","inputs":{"a":["1",0]}}}`,
			nodes: []string{"1"}, unknown: []string{"1"}, words: []string{`Input "foo" of node "1" (A)`, `node "99"`},
		},
		"missing node, not connected": {
			graph:   `{"1":{"class_type":"A","inputs":{"foo":["99",0]}},"2":{"class_type":"Out","inputs":{}}}`,
			unknown: []string{"1"},
		},
		"missing node, downstream only": {
			graph:   `{"1":{"class_type":"Out","inputs":{}},"2":{"class_type":"A","inputs":{"a":["1",0],"b":["99",0]}}}`,
			unknown: []string{"2"},
		},
		"circle upstream": {
			graph: `{"1":{"class_type":"A","inputs":{"i":["2",0]}},"2":{"class_type":"B","inputs":{"j":["1",0]}},"3":{"class_type":"Out","inputs":{"a":["1",0]}}}`,
			nodes: []string{"1", "2"}, unknown: []string{"1", "2"}, words: []string{`"1" (A) <- "2" (B) <- "1" (A)`},
		},
		"circle not connected": {
			graph:   `{"1":{"class_type":"A","inputs":{"i":["2",0]}},"2":{"class_type":"B","inputs":{"j":["1",0]}},"3":{"class_type":"Out","inputs":{}}}`,
			unknown: []string{"1", "2"},
		},
		"a node that feeds itself": {
			graph: `{"1":{"class_type":"Out","inputs":{"i":["1",0]}}}`,
			nodes: []string{"1"}, unknown: []string{"1"}, words: []string{`"1" (Out) <- "1" (Out)`},
		},
		"diamond": {graph: `{"1":{"class_type":"A","inputs":{}},"2":{"class_type":"A","inputs":{"a":["1",0]}},"3":{"class_type":"A","inputs":{"a":["1",0]}},
			"4":{"class_type":"Out","inputs":{"a":["2",0],"b":["3",0],"c":["1",0]}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			g := parse(t, c.graph)
			for i, isOutput := range []func(string) bool{isOut, nil} {
				broken := g.BrokenLinks(isOutput)
				got := []string{}
				for id := range broken {
					got = append(got, id)
				}
				slices.Sort(got)
				if want := [][]string{c.nodes, c.unknown}[i]; !slices.Equal(got, want) && len(got)+len(want) > 0 {
					t.Errorf("outputs known %v: errors at %v, want %v", i == 0, got, want)
				}
				for _, w := range c.words {
					if !strings.Contains(broken.Summary(), w) {
						t.Errorf("the summary lacks %q: %s", w, broken.Summary())
					}
				}
			}
		})
	}
}

func chain(n int) string {
	var b strings.Builder
	b.WriteString(`{"0":{"class_type":"A","inputs":{}}`)
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, `,"%d":{"class_type":"A","inputs":{"x":["%d",0],"y":["0",0]}}`, i, i-1)
	}
	return b.String() + "}"
}

func TestLongChainsAreRefused(t *testing.T) {
	parse(t, chain(MaxChain))
	refused(t, chain(MaxChain+1), "chain of 951 nodes", "at most 950")
	refused(t, chain(MaxNodes), "chain of 20000 nodes")
}

// layers of nodes, each fed by five of the layer before.
func layers(n, width int) string {
	var b strings.Builder
	for l := range n {
		for w := range width {
			fmt.Fprintf(&b, `,"%d.%d":{"class_type":"A","inputs":{"v":0`, l, w)
			for k := range 5 {
				if l > 0 {
					fmt.Fprintf(&b, `,"x%d":["%d.%d",0]`, k, l-1, (w*7+k*13)%width)
				}
			}
			b.WriteString("}}")
		}
	}
	return "{" + b.String()[1:] + "}"
}

func TestGraphsThatKeepComfyUIBusyAreRefused(t *testing.T) {
	g := parse(t, layers(10, 100))
	if work := g.cacheWork(MaxCacheWork); work < 1_500_000 || work > 2_000_000 {
		t.Errorf("work: %d", work)
	}
	parse(t, `{"1":{"class_type":"A","inputs":{"a":["2",0]}},"2":{"class_type":"A","inputs":{"a":["1",0]}}}`) // ends in spite of the circle
	refused(t, layers(20, 200), "minutes and gigabytes")
}

func TestRewrite(t *testing.T) {
	graph := `{"2":{"_meta":{"title":"x"},"inputs":{"image":"a.png","n":1.0,"l":["1",0]},"class_type":"L"},"1":{"class_type":"S","inputs":{}}}`
	g := parse(t, graph)
	if got := string(g.Rewrite(nil, nil)); got != graph {
		t.Errorf("unchanged: %s", got)
	}
	got := string(g.Rewrite(
		func(node, input string, value json.RawMessage) json.RawMessage {
			if node == "2" && input == "image" && string(value) == `"a.png"` {
				return json.RawMessage(`"job/a.png"`)
			}
			return nil
		},
		func(node string) map[string]json.RawMessage {
			if node == "1" {
				return map[string]json.RawMessage{"b\"": json.RawMessage(`2`), "a": json.RawMessage(`1`)}
			}
			return map[string]json.RawMessage{"n": json.RawMessage(`5`)}
		}))
	want := `{"2":{"_meta":{"title":"x"},"inputs":{"image":"job/a.png","l":["1",0],"n":5},"class_type":"L"},"1":{"class_type":"S","inputs":{"a":1,"b\"":2}}}`
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if string(g.JSON()) != graph {
		t.Error("the graph itself has changed")
	}
}

func TestDigest(t *testing.T) {
	base := `{"1":{"class_type":"A","inputs":{"a":1,"b":"ä😀","c":[1,{"x":1,"y":2}]}},"2":{"class_type":"B","inputs":{}}}`
	d := parse(t, base).Digest()
	if len(d) != 64 {
		t.Fatalf("digest %q", d)
	}
	for _, same := range []string{
		` {"2" : {"inputs":{},"class_type":"B"}, "1":{"inputs":{"c":[1,{"y":2,"x":1}],"b":"\u00E4\ud83d\ude00","a":1},"class_type":"\u0041"}}`,
	} {
		if parse(t, same).Digest() != d {
			t.Errorf("differs: %s", same)
		}
	}
	seen := map[string]string{d: base}
	for _, other := range []string{
		strings.Replace(base, `"a":1`, `"a":1.0`, 1),
		strings.Replace(base, `"a":1`, `"a":"1"`, 1),
		strings.Replace(base, `"a":1`, `"a":2`, 1),
		strings.Replace(base, `[1,{`, `[{"x":1,"y":2},1,{`, 1),
		strings.Replace(base, `"ä😀"`, `"\ud83d"`, 1),
		strings.Replace(base, `"ä😀"`, `"\ud83e"`, 1),
		strings.Replace(base, `"ä😀"`, `"\\ud83e"`, 1),
		strings.Replace(base, `"ä😀"`, `"�"`, 1),
		strings.Replace(base, `"x":1,"y":2`, `"x":2,"y":1`, 1),
	} {
		sum := parse(t, other).Digest()
		if before, ok := seen[sum]; ok {
			t.Errorf("one digest for\n%s\n%s", before, other)
		}
		seen[sum] = other
	}
}
