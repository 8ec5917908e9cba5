package client_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/internal/fakeapi"
)

func status(t *testing.T, outputs string) client.Status {
	t.Helper()
	var st client.Status
	require.NoError(t, json.Unmarshal([]byte(`{"id":"job-1","status":"COMPLETED","output":`+outputs+`}`), &st))
	return st
}

func TestSave(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	dir := filepath.Join(t.TempDir(), "new", "out")
	st := status(t, `{"images":[`+s.Output("a.png", []byte("one"))+`,`+s.Output("a.png", []byte("two"))+`,
		{"filename":"b.png","type":"base64","data":"`+base64.StdEncoding.EncodeToString([]byte("three"))+`"}],
		"files":[`+s.Output("v.mp4", []byte("film"))+`],"texts":[{"node_id":"7:1","text":"hello"},`+
		strings.Replace(s.Output("", []byte("long")), `"type":"url",`, "", 1)+`]}`)
	saved, err := client.New(s.URL, "").Save(t.Context(), st, dir)
	require.NoError(t, err)
	want := []struct{ name, data string }{
		{"a.png", "one"}, {"a-1.png", "two"}, {"b.png", "three"}, {"v.mp4", "film"}, {"text_7_1.txt", "hello"}, {"text_9.txt", "long"},
	}
	require.Len(t, saved, len(want))
	for i, w := range want {
		require.Equal(t, filepath.Join(dir, w.name), saved[i].Path)
		got, err := os.ReadFile(saved[i].Path)
		require.NoError(t, err)
		require.Equal(t, w.data, string(got))
	}
	require.Equal(t, client.Saved{Path: filepath.Join(dir, "a-1.png"), NodeID: "9", Filename: "a.png"}, saved[1])

	// Again: nothing is replaced.
	saved, err = client.New(s.URL, "").Save(t.Context(), st, dir)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "a-2.png"), saved[0].Path)
	got, err := os.ReadFile(filepath.Join(dir, "a.png"))
	require.NoError(t, err)
	require.Equal(t, "one", string(got))
	require.Empty(t, temporary(t, dir))

	saved, err = client.New(s.URL, "").Save(t.Context(), client.Status{}, dir)
	require.NoError(t, err)
	require.Empty(t, saved)
}

func temporary(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	return found
}

func TestSaveHostileNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"../../x":                         "x",
		"/etc/passwd":                     "passwd",
		"a/b":                             "b",
		`..\..\win.ini`:                   "win.ini",
		`C:\x.png`:                        "x.png",
		"C:x.png":                         "C_x.png",
		"a\x00b.png":                      "a_b.png",
		"a\nb\x1b[2J.png":                 "a_b_[2J.png",
		"NUL":                             "_NUL",
		"con.png":                         "_con.png",
		"lpt1.tar.gz":                     "_lpt1.tar.gz",
		"lpt10":                           "lpt10",
		"..":                              "output",
		"":                                "output",
		"x/":                              "output",
		".bashrc":                         "bashrc",
		"x.png. .":                        "x.png",
		"-rf":                             "_-rf",
		"\u202egnp.exe":                   "_gnp.exe",
		"\xff.png":                        "_.png",
		`q?&#%+ "<x>|*ä.png`:              `q_&#%+ __x___ä.png`,
		strings.Repeat("ä", 300):          strings.Repeat("ä", 100),
		strings.Repeat("a", 300) + ".png": strings.Repeat("a", 196) + ".png",
		"a." + strings.Repeat("b", 300):   "a." + strings.Repeat("b", 198),
		"ComfyUI_00001_.png":              "ComfyUI_00001_.png",
		"画像 1.png":                        "画像 1.png",
	} {
		t.Run(fmt.Sprintf("%.20q", name), func(t *testing.T) {
			t.Parallel()
			above := t.TempDir()
			dir := filepath.Join(above, "in", "here")
			saved, err := client.New("http://127.0.0.1:1", "").Save(t.Context(), client.Status{Output: &client.Outputs{
				Images: []client.Output{{Filename: name, Type: client.TypeBase64, Data: "eA=="}},
			}}, dir)
			require.NoError(t, err)
			require.Equal(t, filepath.Join(dir, want), saved[0].Path)
			var all []string
			require.NoError(t, filepath.Walk(above, func(p string, i os.FileInfo, err error) error {
				if err == nil && !i.IsDir() {
					all = append(all, p)
				}
				return err
			}))
			require.Equal(t, []string{saved[0].Path}, all)
		})
	}
}

// A link that lies in the folder is not followed, it counts as a file that exists.
func TestSaveBesideSymlink(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(outside, "x"), filepath.Join(dir, "x.png")))
	saved, err := client.New("http://127.0.0.1:1", "").Save(t.Context(), client.Status{Output: &client.Outputs{
		Images: []client.Output{{Filename: "x.png", Type: client.TypeBase64, Data: "eA=="}},
	}}, dir)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "x-1.png"), saved[0].Path)
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestSaveBroken(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("pixels"), 10_000)
	half := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data[:30_000]) }
	other := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.ToUpper(data)) }
	long := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(append(data[:len(data):len(data)], 'x')) }
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "60000")
		_, _ = w.Write(data[:30_000])
		panic(http.ErrAbortHandler)
	}
	endless := func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(data); err != nil {
				return
			}
		}
	}
	gone := fakeapi.Answer(http.StatusNotFound, `{"error":"gone"}`)
	busy := fakeapi.Answer(http.StatusServiceUnavailable, `{"error":"not now"}`)
	for name, test := range map[string]struct {
		answers []http.HandlerFunc
		wrong   string // of the error; empty where the second try cures it
	}{
		"truncated once":     {[]http.HandlerFunc{half}, ""},
		"truncated twice":    {[]http.HandlerFunc{half, half}, "its size is not the 60000 bytes"},
		"other bytes once":   {[]http.HandlerFunc{other}, ""},
		"other bytes twice":  {[]http.HandlerFunc{other, other}, "its SHA-256 is not"},
		"too long twice":     {[]http.HandlerFunc{long, long}, "its size is not"},
		"endless":            {[]http.HandlerFunc{endless}, ""},
		"broken off once":    {[]http.HandlerFunc{cut}, ""},
		"broken off twice":   {[]http.HandlerFunc{cut, cut}, "it broke off after 30000 bytes"},
		"expired link":       {[]http.HandlerFunc{gone}, ""},
		"gone":               {[]http.HandlerFunc{gone, gone}, "gone (HTTP 404)"},
		"busy, then cut off": {[]http.HandlerFunc{busy, fakeapi.Break, cut, busy}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeapi.New(t)
			dir := t.TempDir()
			outputs := `{"images":[` + s.Output("first.png", []byte("first")) + `,` + s.Output("a.png", data) + `]}`
			s.Statuses(`{"id":"job-1","status":"COMPLETED","output":` + outputs + `}`)
			s.Next("GET /outputs/1", test.answers...)
			saved, err := client.New(s.URL, "").Save(t.Context(), status(t, outputs), dir)
			require.Empty(t, temporary(t, dir))
			if test.wrong != "" {
				require.ErrorContains(t, err, test.wrong)
				require.Len(t, saved, 1, "what came whole is told")
				require.Len(t, s.Calls("GET /outputs/1"), 2)
				require.NoFileExists(t, filepath.Join(dir, "a.png"))
				return
			}
			require.NoError(t, err)
			got, err := os.ReadFile(filepath.Join(dir, "a.png"))
			require.NoError(t, err)
			require.Equal(t, data, got)
			require.Equal(t, "output=url", s.Calls("GET /status")[0].Query, "a fresh link was asked for")
		})
	}
}

// A link that has expired for good is replaced by the status's new one.
func TestSaveExpiredLink(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	old, fresh := s.Output("a.png", []byte("pixels")), s.Output("a.png", []byte("pixels"))
	s.Statuses(`{"id":"job-1","status":"COMPLETED","output":{"images":[` + fresh + `]}}`)
	expired := fakeapi.Answer(http.StatusForbidden, `{"error":"The link has expired.","code":"link_expired"}`)
	s.Next("GET /outputs/0", expired, expired)
	saved, err := client.New(s.URL, "").Save(t.Context(), status(t, `{"images":[`+old+`]}`), t.TempDir())
	require.NoError(t, err)
	require.Len(t, saved, 1)
}

func TestSaveCorruptBase64(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := client.New("http://127.0.0.1:1", "", client.WithRetryFor(0)).Save(t.Context(), client.Status{Output: &client.Outputs{
		Images: []client.Output{{Filename: "x.png", Type: client.TypeBase64, Data: "eA==!"}},
	}}, dir)
	var corrupt *client.CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.NoFileExists(t, filepath.Join(dir, "x.png"))
}

func TestSaveLargeWithFlatMemory(t *testing.T) {
	s := fakeapi.New(t)
	outputs := `{"images":[` + s.Output("big.png", bytes.Repeat([]byte("x"), 200<<20)) + `]}`
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	saved, err := client.New(s.URL, "").Save(t.Context(), status(t, outputs), t.TempDir())
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	t.Logf("allocated for 200 MiB: %d KiB", (after.TotalAlloc-before.TotalAlloc)>>10)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
	info, err := os.Stat(saved[0].Path)
	require.NoError(t, err)
	require.EqualValues(t, 200<<20, info.Size())
}
