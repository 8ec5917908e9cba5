package cli

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi/sixel"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/internal/fakeapi"
)

// picture is a PNG, red on its left and blue on its right.
func picture(t *testing.T, width, height int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for x := range width {
		for y := range height {
			c := color.RGBA{R: 255, A: 255}
			if x >= width/2 {
				c = color.RGBA{B: 255, A: 255}
			}
			img.Set(x, y, c)
		}
	}
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, img))
	return b.Bytes()
}

// isPicture checks that it is the one of picture, made small.
func isPicture(t *testing.T, img image.Image) {
	t.Helper()
	require.Equal(t, image.Pt(pictureSide, pictureSide/2), img.Bounds().Size())
	for x, want := range map[int]color.RGBA{10: {R: 255, A: 255}, pictureSide - 10: {B: 255, A: 255}} {
		require.Equal(t, want, color.RGBAModel.Convert(img.At(x, 100)), "at %d", x)
	}
}

// TestPictures on terminals of each kind, as one reads what it is sent.
func TestPictures(t *testing.T) {
	t.Parallel()
	fromPNG := func(t *testing.T, data string) image.Image {
		raw, err := base64.StdEncoding.DecodeString(data)
		require.NoError(t, err)
		img, err := png.Decode(bytes.NewReader(raw))
		require.NoError(t, err)
		return img
	}
	readKitty := func(t *testing.T, text string) image.Image {
		require.Regexp(t, `\x1b_G[^;]*a=T`, text)
		require.Regexp(t, `\x1b_G[^;]*q=2`, text, "no answer is asked for: it would be typed into the shell")
		var data string
		for _, chunk := range regexp.MustCompile(`(?s)\x1b_G[^;]*;(.*?)\x1b\\`).FindAllStringSubmatch(text, -1) {
			require.LessOrEqual(t, len(chunk[1]), 4096)
			data += chunk[1]
		}
		return fromPNG(t, data)
	}
	readITerm2 := func(t *testing.T, text string) image.Image {
		found := regexp.MustCompile(`(?s)\x1b]1337;File=[^:]*inline=1[^:]*:(.*?)\x07`).FindStringSubmatch(text)
		require.NotNil(t, found)
		return fromPNG(t, found[1])
	}
	readSixel := func(t *testing.T, text string) image.Image {
		found := regexp.MustCompile(`(?s)\x1bP[0-9;]*q(.*?)\x1b\\`).FindStringSubmatch(text)
		require.NotNil(t, found)
		img, err := new(sixel.Decoder).Decode(strings.NewReader(found[1]))
		require.NoError(t, err)
		return img
	}
	for name, test := range map[string]struct {
		vars   map[string]string
		answer string
		read   func(*testing.T, string) image.Image
	}{
		"kitty":                {map[string]string{"TERM": "xterm-kitty"}, "", readKitty},
		"one that has kitty's": {map[string]string{"TERM": "xterm-256color"}, "\x1b_Gi=31;OK\x1b\\\x1b[?62;4c", readKitty},
		"iTerm2":               {map[string]string{"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "", readITerm2},
		"iTerm2 over ssh":      {map[string]string{"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "", readITerm2},
		"sixel":                {map[string]string{"TERM": "xterm-256color"}, "\x1b_Gi=31;EINVAL\x1b\\\x1b[?62;4;22c", readSixel},
		"tmux with sixel":      {map[string]string{"TERM": "tmux-256color", "TERM_PROGRAM": "iTerm.app"}, "\x1b[?1;2;4c", readSixel},
		"tmux without":         {map[string]string{"TERM": "tmux-256color", "LC_TERMINAL": "iTerm2"}, "\x1b[?1;2c", nil},
		"none":                 {map[string]string{"TERM": "xterm-256color"}, "\x1b[?64;14;24c", nil},
		"one that is silent":   {map[string]string{"TERM": "xterm-256color"}, "", nil},
		"dumb":                 {map[string]string{"TERM": "dumb"}, "\x1b[?62;4c", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "a.png")
			require.NoError(t, os.WriteFile(path, picture(t, 500, 250), 0o600))
			var out bytes.Buffer
			env := Env{Err: &out, IsTerminal: func(any) bool { return true }, Getenv: func(k string) string { return test.vars[k] }, Ask: func(query string) string {
				require.Equal(t, "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[c", query)
				return test.answer
			}}
			var g gallery
			require.NoError(t, g.check(env, &server{}))
			require.NoError(t, g.showSaved(env, []client.Saved{{Path: path}}))
			if test.read == nil {
				require.Empty(t, out.String())
				require.ErrorContains(t, (&gallery{show: true}).check(env, &server{}), "--show")
				return
			}
			require.Contains(t, out.String(), "a.png\n")
			isPicture(t, test.read(t, out.String()))
		})
	}
}

// TestShow: where pictures are shown, and how many.
func TestShow(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	var images []string
	for range 6 {
		images = append(images, s.Output("a.png", picture(t, 4, 4)))
	}
	images = append(images, s.Output("broken.png", []byte("pixels")), s.Output("v.mp4", []byte("video")))
	s.Statuses(`{"id":"job-1","status":"COMPLETED","output":{"images":[` + strings.Join(images, ",") + `]}}`)
	for name, test := range map[string]struct {
		terminal bool
		args     []string
		code     int
		shown    int
	}{
		"a terminal":          {true, nil, 0, fewPictures},
		"all":                 {true, []string{"--show"}, 0, 6},
		"none":                {true, []string{"--no-show"}, 0, 0},
		"a pipe":              {false, nil, 0, 0},
		"a pipe, but":         {false, []string{"--show"}, 2, 0},
		"JSON":                {true, []string{"--json"}, 0, 0},
		"JSON and pictures":   {true, []string{"--json", "--show"}, 2, 0},
		"neither here nor so": {true, []string{"--no-show", "--show"}, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sh := newShell(t, s)
			sh.terminal, sh.vars["TERM"] = test.terminal, "xterm-kitty"
			require.Equal(t, test.code, sh.run(append([]string{"outputs", "job-1", "--out", t.TempDir()}, test.args...)...), sh.err.String())
			require.Equal(t, test.shown, strings.Count(sh.err.String(), "a=T"))
			require.NotContains(t, sh.out.String(), "\x1b")
		})
	}
}
