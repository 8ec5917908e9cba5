package activities

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// maxWebP bounds a WebP whose metadata is to be removed: its header holds the size of the whole, so it is read at once.
const maxWebP = 256 << 20

// stripMetadata removes what ComfyUI embeds of the graph from a PNG (text chunks) or a WebP (EXIF and XMP). Everything
// else passes as it is.
func stripMetadata(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(12)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte(pngMagic)):
		return &pngStrip{src: b}, nil
	case len(head) == 12 && string(head[:4]) == "RIFF" && string(head[8:]) == "WEBP":
		return stripWebP(b)
	}
	return b, nil
}

// pngStrip streams a PNG without its text and EXIF chunks.
type pngStrip struct {
	src     *bufio.Reader
	started bool
	pass    io.Reader // what of the current piece is still to be passed on
}

func (s *pngStrip) Read(p []byte) (int, error) {
	for {
		if s.pass != nil {
			n, err := s.pass.Read(p)
			if n > 0 || err != io.EOF {
				return n, err
			}
			s.pass = nil
		}
		if err := s.next(); err != nil {
			return 0, err
		}
	}
}

func (s *pngStrip) next() error {
	if !s.started {
		s.started = true
		s.pass = io.LimitReader(s.src, int64(len(pngMagic)))
		return nil
	}
	head, err := s.src.Peek(8)
	if len(head) == 0 {
		return err
	}
	if len(head) < 8 {
		s.pass = io.LimitReader(s.src, int64(len(head)))
		return nil
	}
	size := int64(binary.BigEndian.Uint32(head)) + 12
	switch string(head[4:8]) {
	case "tEXt", "zTXt", "iTXt", "eXIf":
		_, err := io.CopyN(io.Discard, s.src, size)
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	s.pass = io.LimitReader(s.src, size)
	return nil
}

// stripWebP drops the chunks EXIF and XMP and takes back their flags in the VP8X header.
func stripWebP(r io.Reader) (io.Reader, error) {
	all, err := io.ReadAll(io.LimitReader(r, maxWebP+1))
	if err != nil {
		return nil, err
	}
	if len(all) > maxWebP {
		return nil, fmt.Errorf("a WebP above %d bytes cannot be stripped of its metadata", maxWebP)
	}
	out := append([]byte(nil), all[:12]...)
	for rest := all[12:]; len(rest) >= 8; {
		size := int(binary.LittleEndian.Uint32(rest[4:]))
		end := min(8+size+size%2, len(rest))
		chunk := rest[:end]
		rest = rest[end:]
		switch string(chunk[:4]) {
		case "EXIF", "XMP ":
			continue
		case "VP8X":
			chunk = bytes.Clone(chunk)
			if len(chunk) > 8 {
				chunk[8] &^= 0b00001100 // the flags for EXIF and XMP
			}
		}
		out = append(out, chunk...)
	}
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
	return bytes.NewReader(out), nil
}
