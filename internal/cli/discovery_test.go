package cli

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakeapi"
)

func TestModelsAndNodes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args   []string
		answer string
		want   []string
	}{
		"models": {[]string{"models"}, `{"models":{"vae":[],"loras":[{"name":"b\u001b.pt","pools":["url"]}],"checkpoints":[{"name":"a b.ckpt","pools":["local","url"]}]}}`,
			[]string{"checkpoints/a b.ckpt\tlocal,url", "loras/b .pt\turl"}},
		"a folder":   {[]string{"models", "clip"}, `{"folder":"text_encoders","models":[{"name":"a.pt","pools":["url"]}]}`, []string{"clip/a.pt\turl"}},
		"nodes":      {[]string{"nodes"}, `{"nodes":[{"name":"A/B","pools":["url"]}]}`, []string{"A/B\turl"}},
		"a class":    {[]string{"nodes", "A/B"}, `{"name":"A/B","pools":["url"],"definition":{"z":1,"a":2}}`, []string{"{", `  "z": 1,`, `  "a": 2`, "}"}},
		"nodes JSON": {[]string{"nodes", "--json"}, `{"nodes":[{"name":"A","pools":["url"]}]}`, []string{`[{"name":"A","pools":["url"]}]`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeapi.New(t)
			s.Next("GET /"+test.args[0], fakeapi.Answer(200, test.answer))
			sh := newShell(t, s)
			require.Equal(t, 0, sh.run(test.args...), sh.err.String())
			require.Equal(t, test.want, sh.out.lines())
		})
	}
	s := fakeapi.New(t)
	s.Next("GET /nodes/KSamplr", fakeapi.Answer(404, `{"error":"No backend has a node class \"KSamplr\". Did you mean KSampler?","code":"not_found"}`))
	sh := newShell(t, s)
	require.Equal(t, 2, sh.run("nodes", "KSamplr"))
	require.Equal(t, 2, sh.run("models", "a", "b"))
	s.Next("GET /models", fakeapi.Answer(200, `{"models":{"vae":[]}}`))
	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("models"))
	require.Equal(t, "no backend has any\n", sh.err.String())
	require.Empty(t, sh.out.String())
}

func TestSubmitSeeds(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	dir := t.TempDir()
	accepted := fakeapi.Answer(202, `{"batch_id":"b","jobs":[{"id":"job-1","status":"RUNNING","seeds":{"1.seed":7}},{"id":"job-2","status":"RUNNING","seeds":{"1.seed":8}}]}`)
	s.Next("POST /batch", accepted, accepted)
	s.Next("GET /status/job-2", fakeapi.Answer(200, `{"id":"job-2","status":"COMPLETED","output":{"images":[`+s.Output("b.png", []byte("b"))+`]}}`))
	s.Statuses(failed)
	path := file(t, dir, "w.json", workflow)
	sh := newShell(t, s)
	require.Equal(t, 1, sh.run("submit", path, "--seeds", "2", "--out", dir, "--priority", "1"), "one has failed, and the other is fetched")
	require.Equal(t, []string{dir + "/b.png"}, sh.out.lines())
	require.Contains(t, sh.err.String(), "job-2: 1.seed = 8")
	require.Contains(t, sh.err.String(), "mat1 and mat2")
	body := string(s.Calls("POST /batch")[0].Body)
	require.Contains(t, body, `"seeds":2`)
	require.Contains(t, body, `"priority":1`)

	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("submit", path, "--seeds", "2", "--no-wait"), sh.err.String())
	require.Equal(t, []string{"job-1", "job-2"}, sh.out.lines())
	require.Equal(t, 2, sh.run("submit", path, "--seeds", "2", "--random-seed"))
	require.Equal(t, 2, sh.run("submit", path, "--seeds", "-2"))
	require.Len(t, s.Calls("POST /batch"), 2)
}
