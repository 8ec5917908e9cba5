package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakeapi"
)

func TestBatch(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	dir := t.TempDir()
	accepted := fakeapi.Answer(202, `{"batch_id":"b","jobs":[{"id":"job-1","status":"RUNNING"},{"id":"job-2","status":"RUNNING"}]}`)
	s.Next("POST /batch", accepted, accepted)
	s.Next("GET /status/job-2", fakeapi.Answer(200, `{"id":"job-2","status":"COMPLETED","output":{"images":[`+s.Output("b.png", []byte("b"))+`]}}`))
	s.Statuses(completed)
	path := file(t, dir, "w.json", workflow)
	file(t, dir, "other.png", "pixels")
	file(t, dir, "prefix.png", "pixels")
	lines := `{"1.seed": 18446744073709551615, "4.image": "other.png"}` + "\n" + `{"9.filename_prefix": "prefix.png"}` + "\n"
	sh := newShell(t, s)
	sh.in = strings.NewReader(lines)
	require.Equal(t, 0, sh.run("batch", path, "-", "--out", dir, "--metadata", "a=b"), sh.err.String())
	require.Equal(t, []string{dir + "/b.png"}, sh.out.lines())
	require.Contains(t, sh.err.String(), `job-1: 1.seed = 18446744073709551615, 4.image = "other.png"`)
	require.Contains(t, sh.err.String(), "comfyd jobs --metadata comfyd_batch=b\n")
	var sent struct {
		Variations json.RawMessage   `json:"variations"`
		Metadata   map[string]string `json:"metadata"`
		Images     []struct{ Name string }
	}
	require.NoError(t, json.Unmarshal(s.Calls("POST /batch")[0].Body, &sent))
	require.Equal(t, `[{"1.seed":18446744073709551615,"4.image":"other.png"},{"9.filename_prefix":"prefix.png"}]`, string(sent.Variations))
	require.Equal(t, map[string]string{"a": "b"}, sent.Metadata)
	require.Equal(t, []struct{ Name string }{{"other.png"}}, sent.Images)

	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("batch", path, file(t, dir, "v.json", ` [{"1.seed":1},{"1.seed":2}]`), "--no-wait", "--json"), sh.err.String())
	require.Contains(t, sh.out.String(), `{"batch_id":"b","jobs":[{"id":"job-1"`)
	for wrong, says := range map[string]string{"": "has no variations", "[]": "has no variations", "[1]": "no JSON objects", "null": "variation 0", "{": "no JSON objects"} {
		sh := newShell(t, s)
		sh.in = strings.NewReader(wrong)
		require.Equal(t, 2, sh.run("batch", path, "-"), wrong)
		require.Contains(t, sh.err.String(), says, wrong)
	}
	require.Equal(t, 2, newShell(t, s).run("batch", path))
	require.Equal(t, 2, newShell(t, s).run("batch", "-", "-"))
	require.Len(t, s.Calls("POST /batch"), 2)
}
