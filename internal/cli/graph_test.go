package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakeapi"
)

func TestRandomSeeds(t *testing.T) {
	t.Parallel()
	in := `{ "a" : {"inputs":{"seed": 18446744073709551615 ,"cfg":1.50,"steps":4, "big":9007199254740993}},
	"b":{"inputs":{"noise_seed":-0,"seed":["a",0],"x":{"seed":5}},"seed":6,"_meta":{"seed":7}},
	"c":{"inputs":{"seed":"8","text":"\u00e4 \"seed\":9"}}, "seed":10, "inputs":{"seed":11} }`
	out, seeds, err := randomSeeds([]byte(in))
	require.NoError(t, err)
	require.Len(t, seeds, 2)
	require.Equal(t, seed{"a", "seed", seeds[0].value}, seeds[0])
	require.Equal(t, seed{"b", "noise_seed", seeds[1].value}, seeds[1])
	// With the old numbers put back, every byte is as it was.
	digits := regexp.MustCompile(`("seed": |"noise_seed":)\d+`)
	old := []string{`"seed": 18446744073709551615`, `"noise_seed":-0`}
	n := 0
	require.Equal(t, in, digits.ReplaceAllStringFunc(string(out), func(string) string { n++; return old[n-1] }))
	require.Equal(t, 2, n)
	require.True(t, json.Valid(out))
	again, other, err := randomSeeds([]byte(in))
	require.NoError(t, err)
	require.NotEqual(t, string(out), string(again))
	for _, s := range append(seeds, other...) {
		require.Less(t, s.value, uint64(1)<<32)
	}
	for _, in := range []string{`[1]`, `"text"`, `7`, `{}`, `{"a":[{"seed":1}]}`} {
		out, seeds, err := randomSeeds([]byte(in))
		require.NoError(t, err)
		require.Empty(t, seeds)
		require.Equal(t, in, string(out))
	}
}

func TestSubmitRandomSeed(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Statuses(completed)
	sh := newShell(t, s)
	require.Equal(t, 0, sh.run("submit", file(t, t.TempDir(), "w.json", workflow), "--random-seed"), sh.err.String())
	told := regexp.MustCompile(`seed of node 1 "The Sampler" \(KSampler\): (\d+)\n`).FindStringSubmatch(sh.err.String())
	require.Len(t, told, 2)
	require.Contains(t, string(s.Calls("POST /submit_workflow")[0].Body), `"seed":`+told[1]+`,"steps":4`)
	require.Equal(t, 0, sh.run("submit", file(t, t.TempDir(), "w.json", `{"1":{"class_type":"A","inputs":{}}}`), "--random-seed"))
	require.Contains(t, sh.err.String(), "has no seed that is a number")
}

func TestNames(t *testing.T) {
	t.Parallel()
	g := parseGraph([]byte(`{
		"1":{"class_type":"LoadImage","inputs":{"image":"a.png"}},
		"2":{"class_type":"LoadImage","inputs":{"image":"a.png","mask":"sub/b.JPG [input]"}},
		"3":{"class_type":"LoadVideo","inputs":{"file":"v.mp4","n":3,"list":["1",0]}},
		"4":{"class_type":"LoadImage","inputs":{"a":"../x.png","b":"/x.png","c":"x.png [output]","d":"C:\\x.png","e":"a//x.png","f":"http://h/x.png","g":"./x.png"}},
		"5":{"class_type":"CheckpointLoaderSimple","inputs":{"ckpt_name":"model.safetensors","text":"notes.txt"}},
		"6":{"class_type":"SaveImage","inputs":{"filename_prefix":"out.png"}},
		"7":"not a node", "8":{"inputs":{"image":"no-class.png"}}}`))
	require.Equal(t, []string{"a.png", "sub/b.JPG", "v.mp4"}, g.names())
	require.Equal(t, "node 7", g.name("7"))
	require.Equal(t, "node 1 (LoadImage)", g.name("1"))
	require.Equal(t, "LoadImage", g.title("1"))
	require.Empty(t, parseGraph([]byte(`[]`)).names())
}

func TestUploads(t *testing.T) {
	base := t.TempDir()
	beside, here := filepath.Join(base, "beside"), filepath.Join(base, "here")
	file(t, beside, "a.png", "a beside")
	file(t, here, "a.png", "a here")
	file(t, here, "sub/b.png", "b here")
	file(t, here, "unnamed.png", "never")
	file(t, here, "c.png", "never, another is given")
	file(t, base, "secret.png", "never")
	require.NoError(t, os.Symlink(filepath.Join(base, "secret.png"), filepath.Join(here, "link.png")))
	require.NoError(t, os.Mkdir(filepath.Join(here, "folder.png"), 0o755))
	other := file(t, base, "other.bin", "c given")
	t.Chdir(here)

	s := fakeapi.New(t)
	s.Statuses(completed)
	s.Next("POST /inputs", fakeapi.Answer(201, `{"name":"x","ref":"r1"}`), fakeapi.Answer(201, `{"name":"x","ref":"r2"}`), fakeapi.Answer(201, `{"name":"x","ref":"r3"}`))
	sh := newShell(t, s)
	w := file(t, beside, "w.json", `{"1":{"class_type":"Many","inputs":{"1":"a.png","2":"sub/b.png","3":"c.png","4":"missing.png","5":"link.png","6":"folder.png","7":"../secret.png"}},
		"2":{"class_type":"LoadImage","inputs":{"image":"a.png"}}}`)
	require.Equal(t, 0, sh.run("submit", w, "--image", "c.png="+other), sh.err.String())
	uploads := s.Calls("POST /inputs")
	require.Len(t, uploads, 3)
	for i, want := range []string{"c given", "a beside", "b here"} {
		require.Contains(t, string(uploads[i].Body), "\r\n\r\n"+want+"\r\n")
	}
	require.Equal(t, []string{
		`uploading ` + other + ` (7 B) as "c.png"`, `uploading ` + filepath.Join(beside, "a.png") + ` (8 B) as "a.png"`,
		`uploading sub/b.png (6 B) as "sub/b.png"`, "submitted as job-1",
	}, sh.err.lines()[:4])
	require.Contains(t, string(s.Calls("POST /submit_workflow")[0].Body),
		`"images":[{"name":"c.png","ref":"r1"},{"name":"a.png","ref":"r2"},{"name":"sub/b.png","ref":"r3"}]`)

	// A workflow from standard input has only the current folder.
	sh = newShell(t, s)
	sh.in = strings.NewReader(`{"2":{"class_type":"LoadImage","inputs":{"image":"a.png"}}}`)
	require.Equal(t, 0, sh.run("submit", "-"), sh.err.String())
	uploads = s.Calls("POST /inputs")
	require.Contains(t, string(uploads[3].Body), "a here")
	require.Len(t, uploads, 4)
}
