package comfy

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// hostile bodies of 32 MB.
func hostile() map[string]func() string {
	const size = 32 << 20
	node := func(inputs string) string { return `{"1":{"class_type":"A","inputs":{` + inputs + `}}}` }
	keys := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"k%d":0`, i)
		}
		return b.String()[1:]
	}
	return map[string]func() string{
		"one string":         func() string { return node(`"a":"` + strings.Repeat("x", size) + `"`) },
		"one escaped string": func() string { return node(`"a":"` + strings.Repeat(`\u00e4`, size/6) + `"`) },
		"a string of it all": func() string {
			return `"` + strings.Repeat(`\u0020`, size/6) + `{\"1\":{\"class_type\":\"A\",\"inputs\":{}}}"`
		},
		"white space":       func() string { return strings.Repeat(" \n", size/2) + node("") },
		"numbers in a list": func() string { return node(`"a":[` + strings.Repeat("1,", size/2) + "1]") },
		"long numeral":      func() string { return node(`"a":1.` + strings.Repeat("1", size)) },
		"399,990 keys":      func() string { return node(keys(399_990)) },
		"keys without end":  func() string { return node(keys(2_000_000)) },
		"big object, then small ones": func() string {
			return node(keys(200_000) + `,"z":[` + strings.Repeat(`{"a":1},`, 199_000) + `0]`)
		},
		"deep":       func() string { return strings.Repeat(`{"a":`, size/5) },
		"deep lists": func() string { return node(`"a":` + strings.Repeat("[", size)) },
		"deep, repeatedly": func() string {
			one := strings.Repeat("[", 96) + strings.Repeat("]", 96)
			return node(`"a":[` + strings.Repeat(one+",", size/len(one)-1) + `0]`)
		},
		"one string, 97 deep": func() string {
			return node(`"a":` + strings.Repeat(`{"a":`, 97) + `"` + strings.Repeat("x", size) + `"` + strings.Repeat("}", 97))
		},
		"nodes without end": func() string { return "{" + strings.Repeat(`"x":{},`, size/7) + "}" },
		"20,000 nodes, 18 links each": func() string {
			var b strings.Builder
			for i := range 20_000 {
				fmt.Fprintf(&b, `,"%d":{"class_type":"A","inputs":{`, i)
				for j := range 17 {
					if j > 0 {
						b.WriteByte(',')
					}
					fmt.Fprintf(&b, `"i%d":["%d",0]`, j, i*3/4+j*17%97)
				}
				b.WriteString("}}")
			}
			return "{" + b.String()[1:] + "}"
		},
		"one circle of 600, linked 600 times over": func() string {
			var b strings.Builder
			for i := range 600 {
				fmt.Fprintf(&b, `,"%d":{"class_type":"A","inputs":{`, i)
				for j := range 600 {
					if j > 0 {
						b.WriteByte(',')
					}
					fmt.Fprintf(&b, `"i%d":["%d",0]`, j, (i+j)%600)
				}
				b.WriteString("}}")
			}
			return "{" + b.String()[1:] + "}"
		},
	}
}

// No body may cost more than a few seconds, whatever is in it.
func TestHostileBodiesAreCheap(t *testing.T) {
	if testing.Short() {
		t.Skip("short: sixteen bodies of 32 MB")
	}
	const most = 2 * time.Minute // measured: 1.6 s at worst on two busy cores; what is quadratic takes many minutes
	for name, body := range hostile() {
		data := []byte(body())
		began := time.Now()
		g, err := ParseGraph(data)
		parsed := time.Since(began)
		if err == nil {
			g.BrokenLinks(nil)
			g.Digest()
		}
		took := time.Since(began)
		t.Logf("%-42s %4d MB  parse %v, with links and digest %v: %.110v", name, len(data)>>20, parsed.Round(time.Millisecond), took.Round(time.Millisecond), err)
		if took > most {
			t.Errorf("%s: %v", name, took)
		}
	}
}

func BenchmarkParseGraph(b *testing.B) {
	data := []byte(corpusFile(b, "chain_200_nodes.json"))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := ParseGraph(data); err != nil {
			b.Fatal(err)
		}
	}
}
