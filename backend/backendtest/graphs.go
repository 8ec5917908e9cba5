package backendtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// Prompt makes a prompt of a graph in API format, with new IDs.
func Prompt(t testing.TB, graph string) *backend.Prompt {
	t.Helper()
	g, err := comfy.ParseGraph([]byte(graph))
	require.NoError(t, err)
	return &backend.Prompt{JobID: uuid.NewString(), ID: uuid.NewString(), Submission: 1, Graph: g, StallTimeout: time.Minute}
}

func (s *suite) prompt(graph string) *backend.Prompt { return Prompt(s.T, graph) }

// solid makes images of one colour.
func solid(width, height, batch, rgb int) string {
	return fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":%d,"height":%d,"batch_size":%d,"color":%d}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"comfyd-suite/solid"}}}`, width, height, batch, rgb)
}

// slowRows make a prompt slow enough to be seen at work by a backend that is told of progress once a second, and to be at
// work still when the test has been held up for some seconds since. ComfyUI makes no latent of more than 2048.
const slowRows = 1600

// slow makes one image of 384 pixels by 8 for each row, tile by tile; after each tile it can be interrupted. None of it
// is cached.
func slow(rows int) string {
	return fmt.Sprintf(`{"1":{"class_type":"VAELoader","inputs":{"vae_name":"pixel_space"}},
		"2":{"class_type":"EmptyChromaRadianceLatentImage","inputs":{"width":384,"height":%d,"batch_size":1}},
		"3":{"class_type":"VAEDecodeTiled","inputs":{"samples":["2",0],"vae":["1",0],"tile_size":64,"overlap":16,"temporal_size":%d,"temporal_overlap":8}},
		"4":{"class_type":"SaveImage","inputs":{"images":["3",0],"filename_prefix":"comfyd-suite/slow"}}}`, rows*8, 64+4*rand.IntN(1000))
}

// load saves an input as it is.
func load(name string) string {
	quoted, _ := json.Marshal(name)
	return fmt.Sprintf(`{"1":{"class_type":"LoadImage","inputs":{"image":%s}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"comfyd-suite/loaded"}}}`, quoted)
}

func pngOf(w, h int, c color.NRGBA) []byte {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := 0; i < len(m.Pix); i += 4 {
		m.Pix[i], m.Pix[i+1], m.Pix[i+2], m.Pix[i+3] = c.R, c.G, c.B, c.A
	}
	var b bytes.Buffer
	_ = png.Encode(&b, m) // into memory
	return b.Bytes()
}

func input(name string, data []byte) backend.Input {
	sum := sha256.Sum256(data)
	return backend.Input{Name: name, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data)),
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// solid checks that a file is an image of one colour. A zero colour stands for any.
func (s *suite) solid(out *backend.Outcome, f backend.File, w, h int, c color.NRGBA) {
	s.Helper()
	body, size, err := s.b.Open(s.ctx, out.Handle, f)
	require.NoError(s.T, err)
	data, err := io.ReadAll(body)
	require.NoError(s.T, err)
	require.NoError(s.T, body.Close())
	if size >= 0 {
		require.EqualValues(s.T, size, len(data))
	}
	checkSolid(s.T, data, w, h, c)
}

func checkSolid(t testing.TB, data []byte, w, h int, c color.NRGBA) {
	t.Helper()
	m, err := png.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	require.Equal(t, image.Pt(w, h), m.Bounds().Size())
	if c == (color.NRGBA{}) {
		return
	}
	for y := range h {
		for x := range w {
			if got := color.NRGBAModel.Convert(m.At(x, y)); got != c {
				require.Equal(t, c, got, "pixel %d,%d", x, y)
			}
		}
	}
}
