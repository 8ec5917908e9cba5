package activities

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"image"
	_ "image/gif"  // so that image.DecodeConfig knows it
	_ "image/jpeg" // likewise
	_ "image/png"  // likewise
	"io"
	"mime"
	"path"
	"strings"

	"github.com/gabriel-vasile/mimetype"
	_ "golang.org/x/image/webp" // likewise
)

// headSize is how much of a file is kept to tell its type and its dimensions. JPEG files of cameras carry up to 64 KiB
// of metadata in front.
const headSize = 256 << 10

var (
	errEmpty = errors.New("it is empty")
	errCut   = errors.New("it is cut off")
)

// inspector looks at a file while it streams by: what it is, how large its picture is, and whether it is whole.
type inspector struct {
	name string
	want int64 // announced size, -1 where unknown

	head          bytes.Buffer
	tail          [2]byte
	n             int64
	png           *pngWalk
	width, height int
}

func newInspector(name string, size int64) *inspector { return &inspector{name: name, want: size} }

// reader passes the bytes on; instead of io.EOF it returns an error when what came is not whole.
func (i *inspector) reader(r io.Reader) io.Reader { return &inspecting{i: i, r: r} }

type inspecting struct {
	i *inspector
	r io.Reader
}

func (s *inspecting) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.i.see(p[:n])
	if err == io.EOF {
		if bad := s.i.finish(); bad != nil {
			return n, bad
		}
	}
	return n, err
}

func (i *inspector) see(p []byte) {
	if i.n == 0 && bytes.HasPrefix(p, []byte(pngMagic)) {
		i.png = &pngWalk{}
	}
	if i.png != nil {
		i.png.see(p)
	}
	i.n += int64(len(p))
	if room := headSize - i.head.Len(); room > 0 {
		i.head.Write(p[:min(room, len(p))])
	}
	switch len(p) {
	case 0:
	case 1:
		i.tail = [2]byte{i.tail[1], p[0]}
	default:
		i.tail = [2]byte(p[len(p)-2:])
	}
}

func (i *inspector) finish() error {
	if i.n == 0 {
		return errEmpty
	}
	if i.want >= 0 && i.n != i.want {
		return fmt.Errorf("%w: %d of %d bytes came", errCut, i.n, i.want)
	}
	if c, _, err := image.DecodeConfig(bytes.NewReader(i.head.Bytes())); err == nil {
		i.width, i.height = c.Width, c.Height
	}
	head := i.head.Bytes()
	switch {
	case i.png != nil:
		return i.png.whole()
	case bytes.HasPrefix(head, []byte{0xff, 0xd8, 0xff}) && i.tail != [2]byte{0xff, 0xd9}:
		return fmt.Errorf("%w: the JPEG has no end", errCut)
	case len(head) >= 12 && string(head[:4]) == "RIFF" && string(head[8:12]) == "WEBP" &&
		int64(binary.LittleEndian.Uint32(head[4:]))+8 > i.n:
		return fmt.Errorf("%w: the WebP is shorter than it says", errCut)
	}
	return nil
}

// contentType goes by the bytes; where they tell nothing, by the name.
func (i *inspector) contentType() string {
	t := mimetype.Detect(i.head.Bytes()).String()
	if t == "application/octet-stream" || strings.HasPrefix(t, "text/plain") {
		if byName := mime.TypeByExtension(path.Ext(i.name)); byName != "" {
			t = byName
		}
	}
	if t == "image/vnd.mozilla.apng" {
		t = "image/apng" // its registered name
	}
	return t
}

const pngMagic = "\x89PNG\r\n\x1a\n"

// pngWalk checks a PNG's chunks as they stream by: lengths, checksums, and that it ends with IEND.
type pngWalk struct {
	skip   int    // bytes of the signature seen
	header []byte // length and type of the chunk at hand
	left   uint32 // bytes of its data still to come
	sum    hash.Hash32
	crc    []byte
	ended  bool
	bad    error
}

func (w *pngWalk) see(p []byte) {
	for len(p) > 0 && w.bad == nil && !w.ended {
		switch {
		case w.skip < len(pngMagic):
			n := min(len(pngMagic)-w.skip, len(p))
			w.skip, p = w.skip+n, p[n:]
		case len(w.header) < 8:
			n := min(8-len(w.header), len(p))
			w.header, p = append(w.header, p[:n]...), p[n:]
			if len(w.header) == 8 {
				w.left, w.sum = binary.BigEndian.Uint32(w.header), crc32.NewIEEE()
				w.sum.Write(w.header[4:])
			}
		case w.left > 0:
			n := min(int(w.left), len(p))
			w.sum.Write(p[:n])
			w.left, p = w.left-uint32(n), p[n:]
		default:
			n := min(4-len(w.crc), len(p))
			w.crc, p = append(w.crc, p[:n]...), p[n:]
			if len(w.crc) == 4 {
				w.chunkEnd()
			}
		}
	}
}

func (w *pngWalk) chunkEnd() {
	if binary.BigEndian.Uint32(w.crc) != w.sum.Sum32() {
		w.bad = fmt.Errorf("its chunk %q is damaged", w.header[4:])
	}
	w.ended = string(w.header[4:]) == "IEND"
	w.header, w.crc = w.header[:0], w.crc[:0]
}

func (w *pngWalk) whole() error {
	switch {
	case w.bad != nil:
		return w.bad
	case !w.ended:
		return fmt.Errorf("%w: the PNG has no end", errCut)
	}
	return nil
}
