package api

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// animation is a GIF of a screen with two equal sides and of frames with others, which hold next to nothing.
func animation(screen, side uint16, frames int) []byte {
	le := binary.LittleEndian
	raw := append(le.AppendUint16(le.AppendUint16([]byte("GIF89a"), screen), screen), 0, 0, 0)
	for range frames {
		raw = append(le.AppendUint16(le.AppendUint16(append(raw, 0x2c, 0, 0, 0, 0), side), side), 0, 2, 1, 0, 0)
	}
	return append(raw, 0x3b)
}

// comment is an extension block of a GIF.
func comment(size int) []byte {
	return append(append([]byte{0x21, 0xfe}, bytes.Repeat(append([]byte{255}, make([]byte, 255)...), size/256)...), 0)
}

// pngChunk is one of a PNG file, without a checksum that is right.
func pngChunk(name string, data ...byte) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), name...), append(data, 0, 0, 0, 0)...)
}

// apng says that it has frames, and goes on with some of its data.
func apng(side uint32, frames uint32) []byte {
	ihdr := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, side), side)
	head := pngChunk("IHDR", append(ihdr, 8, 2, 0, 0, 0)...)
	copy(head[len(head)-4:], binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(head[4:len(head)-4])))
	raw := append([]byte("\x89PNG\r\n\x1a\n"), head...)
	raw = append(raw, pngChunk("tEXt", []byte("acTL\x00acTL")...)...)
	raw = append(raw, pngChunk("acTL", append(binary.BigEndian.AppendUint32(nil, frames), 0, 0, 0, 0)...)...)
	return append(raw, pngChunk("IDAT", make([]byte, 100)...)...)
}

// webp is an animation of empty frames.
func webp(side uint32, frames int) []byte {
	le := binary.LittleEndian
	vp8x := []byte{0x02, 0, 0, 0, byte(side - 1), byte((side - 1) >> 8), 0, byte(side - 1), byte((side - 1) >> 8), 0}
	body := append(append([]byte("WEBPVP8X"), le.AppendUint32(nil, 10)...), vp8x...)
	body = append(append(append(body, "ANIM"...), le.AppendUint32(nil, 6)...), make([]byte, 6)...)
	for range frames {
		body = append(append(append(body, "ANMF"...), le.AppendUint32(nil, 17)...), make([]byte, 18)...) // filled up to an even length
	}
	return append(append([]byte("RIFF"), le.AppendUint32(nil, uint32(len(body)))...), body...)
}

// TestF22FrameBombs: ComfyUI decodes all frames of an animation at once.
func TestF22FrameBombs(t *testing.T) {
	h := newHarness(t)
	for name, c := range map[string]struct {
		raw    []byte
		status int
		frames string
	}{
		"a GIF":                {animation(100, 100, 60), 201, ""},
		"ten seconds of HD":    {animation(960, 960, 240), 201, ""},
		"a GIF bomb":           {animation(8000, 100, 17), 422, "(gif) has 17 frames"},
		"just not one":         {animation(8000, 100, 16), 201, ""},
		"many small ones":      {animation(1, 1, 10_001), 422, "(gif) has 10001 frames"},
		"a GIF, far in":        {slices.Insert(animation(8000, 100, 17), 13, comment(300<<10)...), 422, "(gif) has 17 frames"},
		"bytes in between":     {slices.Insert(animation(8000, 100, 17), 13, 0, 7, 0), 422, "(gif) has 17 frames"},
		"beyond its screen":    {animation(1, 8000, 17), 422, "(gif) has 17 frames or more of 8000 x 8000"},
		"far beyond it":        {animation(1, 20_000, 1), 422, "(gif) has 20000 x 20000"},
		"an APNG":              {apng(1000, 1000), 201, ""},
		"an APNG bomb":         {apng(1000, 1074), 422, "(png) has 1074 frames"},
		"a PNG with much text": {slices.Insert(bomb(20_000, 20_000), 33, pngChunk("tEXt", make([]byte, 300<<10)...)...), 422, "(png) has 20000 x 20000"},
		"a WebP":               {webp(1000, 1073), 201, ""},
		"a WebP bomb":          {webp(1000, 1074), 422, "(webp) has 1074 frames"},
		"a WebP with more":     {slices.Concat(webp(1000, 1074)[:16], []byte{12}, webp(1000, 1074)[17:30], []byte{0, 0}, webp(1000, 1074)[30:]), 422, "(webp) has 1074 frames"},
		"a GIF that is cut":    {animation(8000, 100, 17)[:100], 201, ""},
		"a PNG that is none":   {[]byte("\x89PNG\r\n\x1a\n" + strings.Repeat("no picture at all ", 9)), 201, ""},
		"a GIF that is none":   {[]byte("GIF8" + strings.Repeat("no picture at all,", 9)), 201, ""},
		"something short":      {[]byte("GIF89a"), 201, ""},
	} {
		t.Run(name, func(t *testing.T) {
			kept := len(h.store.objects)
			a := h.do("POST", "/inputs?name=x.gif", string(c.raw), "Content-Type", "image/gif")
			require.Equal(t, c.status, a.status, "%s", a.raw)
			if c.status == 422 {
				h.requireError(a, 422, CodeInvalidInput)
				require.Contains(t, a.body["error"], c.frames)
				require.Len(t, h.store.objects, kept, "nothing is kept")
			}
			for size := range 3 { // however the bytes come
				_, err := io.CopyBuffer(struct{ io.Writer }{newFrames()}, struct{ io.Reader }{bytes.NewReader(c.raw)}, make([]byte, size+1))
				require.Equal(t, c.status == 422, err != nil, "%d bytes at a time: %v", size+1, err)
			}
		})
	}
}
