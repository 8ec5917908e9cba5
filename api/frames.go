package api

import (
	"encoding/binary"
	"image"
)

// frames counts the frames of an animation as its bytes come by, and fails where they have more pixels together than one
// picture may have: ComfyUI decodes them all into memory before the first node sees one (LoadImage in its nodes.py). Nothing
// is decoded here.
type frames struct {
	format string
	size   image.Config
	count  int64

	skip int64  // bytes that say nothing
	want int    // then so many are for step
	have []byte // of them
	step func(b []byte)
}

// framesOf counts those of a file in one of the formats that have them.
func framesOf(format string, size image.Config) *frames {
	f := &frames{format: format, size: size}
	switch format {
	case "gif":
		f.next(0, 13, f.gifHeader)
	case "png":
		f.next(8, 8, f.pngChunk)
	case "webp":
		f.next(12, 8, f.webpChunk)
	}
	return f
}

func (f *frames) next(skip int64, want int, step func(b []byte)) { f.skip, f.want, f.step = skip, want, step }

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
		if f.count > 1 && f.count > maxPixels/max(int64(f.size.Width)*int64(f.size.Height), 1) {
			return 0, failf(CodeInvalidInput, "The animation (%s) has %d frames or more of %d x %d pixels; ComfyUI reads them all at once, and together they may have %d pixels.",
				f.format, f.count, f.size.Width, f.size.Height, maxPixels)
		}
	}
	return n, nil
}

// gifHeader is the header and the screen's size (GIF89a, 17 and 18); colours may follow.
func (f *frames) gifHeader(b []byte) { f.next(gifColors(b[10]), 1, f.gifBlock) }

func gifColors(flags byte) int64 {
	if flags&0x80 == 0 {
		return 0
	}
	return 3 << (flags&7 + 1)
}

// gifBlock is the first byte of a block: a frame, an extension with its label, or the end.
func (f *frames) gifBlock(b []byte) {
	switch b[0] {
	case 0x2c:
		f.count++
		f.next(0, 9, func(b []byte) { f.next(gifColors(b[8])+1, 1, f.gifData) })
	case 0x21:
		f.next(1, 1, f.gifData)
	default:
		f.step = nil
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
	length := int64(binary.BigEndian.Uint32(b))
	switch string(b[4:8]) {
	case "acTL":
		f.next(0, 4, func(b []byte) { f.count, f.step = int64(binary.BigEndian.Uint32(b)), nil })
	case "IDAT":
		f.step = nil
	default:
		f.next(length+4, 8, f.pngChunk)
	}
}

// webpChunk is a chunk's name and length, behind which it is filled up to an even one.
func (f *frames) webpChunk(b []byte) {
	length := int64(binary.LittleEndian.Uint32(b[4:]))
	if string(b[:4]) == "ANMF" {
		f.count++
	}
	f.next(length+length&1, 8, f.webpChunk)
}
