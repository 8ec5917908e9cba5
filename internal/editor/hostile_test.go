package editor_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/editor"
)

// TestHostileFilesAreCheap: a file of some megabytes cannot keep a processor busy, whatever stands in it. What grew with
// the square of its size took minutes; the limit is for machines that do much else.
func TestHostileFilesAreCheap(t *testing.T) {
	const many = 20_000
	several := func(n int, format string) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = strings.ReplaceAll(format, "#", fmt.Sprint(i+10))
		}
		return strings.Join(parts, ",")
	}
	// asking is a node with many inputs, each linked to the first output of node 7.
	asking := func(kind string) (node, links string) {
		return fmt.Sprintf(`{"id":8,"type":"PreviewAny","inputs":[%s]}`, several(many, `{"name":"i#","type":"`+kind+`","link":#}`)), "," + several(many, `[#,7,0,8,0,"X"]`)
	}
	x, xLinks := asking("X")
	all := classes(t)
	for name, file := range map[string]string{
		"comments": saved("/*more*/", fmt.Sprintf(`,{"id":7,"type":"CLIPTextEncode","inputs":[],"widgets_values":["%s"]}`, strings.Repeat(`/* //\n`, 200_000))),
		"kinds": saved(`"link":1`, `"link":3`, "/*more*/", fmt.Sprintf(`,{"id":7,"type":"ImageToMask","mode":4,"inputs":[{"name":"a","type":"%s","link":1}],"outputs":[{"type":"%[1]s"}]},
			{"id":9,"type":"Reroute","mode":4,"inputs":[{"name":"b","type":"%s","link":1}],"outputs":[{"type":"%s"}]}`,
			strings.Repeat("a,", 300_000)+"a", strings.Repeat("b,", 300_000)+"b", strings.Repeat("c,", 300_000)+"c"), "/*links*/", `,[3,9,0,2,0,"IMAGE"]`),
		"inputs of a bypassed node": saved("/*more*/", `,{"id":7,"type":"Reroute","mode":4,"inputs":[`+several(many, `{"name":"b#","type":"Y"}`)+`],"outputs":[{"type":"Z"}]},`+x, "/*links*/", xLinks),
		"outputs of a subgraph": saved("/*more*/", `,{"id":7,"type":"sub","inputs":[]},`+x, "/*links*/", xLinks,
			"/*top*/", `,"definitions":{"subgraphs":[{"id":"sub","outputs":[{"name":"o","type":"X","linkIds":[`+strings.Repeat("7,", 500_000)+`7]}],"nodes":[],"links":[]}]}`),
		"names of a GetNode": saved("/*more*/", `,{"id":7,"type":"GetNode","outputs":[{"type":"X"}],"widgets_values":[1`+strings.Repeat(",1", 500_000)+`]},`+x, "/*links*/", xLinks),
		"widgets of a subgraph": saved("/*more*/", `,{"id":7,"type":"sub","inputs":[],"widgets_values":[`+several(8*many, "1")+`],"properties":{"proxyWidgets":[`+several(8*many, `["-1","w#"]`)+`]}}`,
			"/*top*/", `,"definitions":{"subgraphs":[{"id":"sub","inputs":[`+several(8*many, `{"name":"i#","type":"X"}`)+`],"nodes":[],"links":[]}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			done, began := make(chan struct{}), time.Now()
			go func() {
				defer close(done)
				_, _ = editor.Convert([]byte(file), all, first) // converted or refused: both are well
			}()
			select {
			case <-done:
				t.Logf("%d bytes: %v", len(file), time.Since(began).Round(time.Millisecond))
			case <-time.After(time.Minute):
				require.Fail(t, "it takes too long")
			}
		})
	}
}
