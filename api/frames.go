package api

import "encoding/binary"

const (
	// maxAnimated is how many pixels the frames of an animation may have together. ComfyUI decodes them all before the first
	// node sees one (LoadImage in its nodes.py), into 12 bytes for each pixel: 13 GB.
	maxAnimated = 1 << 30
	maxFrames   = 10_000
)

// frames reads the size of a picture and counts its frames as its bytes come by, and fails where they are too many. Nothing
// is decoded; where a file says one thing twice, what Pillow would make of it counts.
type frames struct {
	format        string
	width, height int64
	count         int64

	skip int64  // bytes that say nothing
	want int    // then so many are for step
	have []byte // of them
	step func(b []byte)
}

func newFrames() *frames {
	f := &frames{}
	f.next(0, 12, f.begin)
	return f
}

func (f *frames) next(skip int64, want int, step func(b []byte)) {
	f.skip, f.want, f.step = skip, want, step
}

// Write implements io.Writer.
func (f *frames) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && f.step != nil {
		if f.skip > 0 {
			k := min(f.skip, int64(len(p)))
			f.skip, p = f.skip-k, p[k:]
			continue
		}
		k := min(f.want-len(f.have), len(p))
		f.have, p = append(f.have, p[:k]...), p[k:]
		if len(f.have) < f.want {
			continue
		}
		b := f.have
		f.have = f.have[:0]
		f.step(b)
		if err := f.check(); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (f *frames) check() error {
	pixels := f.width * f.height // it overflows only where one side alone is too long
	switch {
	case f.width > maxPixels || f.height > maxPixels || pixels > maxPixels:
		return tooManyPixels(f.format, f.width, f.height)
	case f.count > maxFrames || f.count > 1 && f.count > maxAnimated/max(pixels, 1):
		return failf(CodeInvalidInput, "The animation (%s) has %d frames or more of %d x %d pixels. ComfyUI would decode them all at once; this server takes %d frames, and %d pixels in all.",
			f.format, f.count, f.width, f.height, maxFrames, maxAnimated)
	}
	return nil
}

// begin tells the format by the first 12 bytes.
func (f *frames) begin(b []byte) {
	switch {
	case string(b[:6]) == "GIF87a" || string(b[:6]) == "GIF89a": // the screen's size, then its colours (GIF89a, 17 to 19)
		f.format = "gif"
		f.grow(int64(binary.LittleEndian.Uint16(b[6:])), int64(binary.LittleEndian.Uint16(b[8:])))
		f.next(1+gifColors(b[10]), 1, f.gifBlock)
	case string(b[:8]) == "\x89PNG\r\n\x1a\n": // and the length of the first chunk, IHDR, which is a fixed one
		f.format = "png"
		f.next(0, 12, func(b []byte) {
			if f.step = nil; string(b[:4]) == "IHDR" {
				f.grow(int64(binary.BigEndian.Uint32(b[4:])), int64(binary.BigEndian.Uint32(b[8:])))
				f.next(5+4, 8, f.pngChunk)
			}
		})
	case string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP":
		f.format = "webp"
		f.next(0, 8, f.webpChunk)
	default:
		f.step = nil
	}
}

// grow takes a size; a frame that reaches beyond what was known of a picture makes it larger.
func (f *frames) grow(width, height int64) {
	f.width, f.height = max(f.width, width), max(f.height, height)
}

func gifColors(flags byte) int64 {
	if flags&0x80 == 0 {
		return 0
	}
	return 3 << (flags&7 + 1)
}

// gifBlock is the first byte of a block: a frame, an extension with its label, or the end. Others are passed over.
func (f *frames) gifBlock(b []byte) {
	switch b[0] {
	case 0x2c:
		f.count++
		f.next(0, 9, func(b []byte) {
			at := func(i int) int64 { return int64(binary.LittleEndian.Uint16(b[i:])) }
			f.grow(at(0)+at(4), at(2)+at(6))
			f.next(gifColors(b[8])+1, 1, f.gifData)
		})
	case 0x21:
		f.next(1, 1, f.gifData)
	case 0x3b:
		f.step = nil
	default:
		f.next(0, 1, f.gifBlock)
	}
}

// gifData is the length of the next piece of a block; the last one is empty.
func (f *frames) gifData(b []byte) {
	if b[0] == 0 {
		f.next(0, 1, f.gifBlock)
		return
	}
	f.next(int64(b[0]), 1, f.gifData)
}

// pngChunk is a chunk's length and name. An animation's acTL, which says how many frames there are, comes before the first data.
func (f *frames) pngChunk(b []byte) {
	switch string(b[4:8]) {
	case "acTL":
		f.next(0, 4, func(b []byte) { f.count, f.step = int64(binary.BigEndian.Uint32(b)), nil })
	case "IDAT":
		f.step = nil
	default:
		f.next(int64(binary.BigEndian.Uint32(b))+4, 8, f.pngChunk)
	}
}

// webpChunk is a chunk's name and length, behind which it is filled up to an even one.
func (f *frames) webpChunk(b []byte) {
	length := int64(binary.LittleEndian.Uint32(b[4:]))
	length += length & 1
	switch string(b[:4]) {
	case "VP8X":
		f.next(4, 6, func(b []byte) { // each less one, in 24 bits
			side := func(i int) int64 { return 1 + int64(b[i]) + int64(b[i+1])<<8 + int64(b[i+2])<<16 }
			f.grow(side(0), side(3))
			f.next(max(length-10, 0), 8, f.webpChunk)
		})
		return
	case "ANMF":
		f.count++
	}
	f.next(length, 8, f.webpChunk)
}
