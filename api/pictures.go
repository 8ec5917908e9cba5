package api

import (
	"bytes"
	"image"
	_ "image/gif"  // so that image.DecodeConfig knows it
	_ "image/jpeg" // likewise
	_ "image/png"  // likewise
	"path"
	"strings"

	"github.com/gabriel-vasile/mimetype"
	_ "golang.org/x/image/bmp"  // likewise
	_ "golang.org/x/image/webp" // likewise
)

const (
	// headSize is how much of a file is looked at. JPEG files of cameras carry up to 64 KiB of metadata in front.
	headSize = 256 << 10
	// maxPixels is where Pillow, with which ComfyUI reads pictures, takes one for a bomb.
	maxPixels = 178_956_970
)

// checkPicture refuses a picture that its header says to be so large that ComfyUI would not read it. Nothing is decoded;
// what has no header that we know is ComfyUI's to judge.
func checkPicture(head []byte) error {
	c, format, err := image.DecodeConfig(bytes.NewReader(head))
	if err != nil || int64(c.Width)*int64(c.Height) <= maxPixels {
		return nil
	}
	return tooManyPixels(format, int64(c.Width), int64(c.Height))
}

func tooManyPixels(format string, width, height int64) *Error {
	return failf(CodeInvalidInput, "The picture (%s) has %d x %d pixels; ComfyUI reads no more than %d.", format, width, height, maxPixels)
}

// checkType refuses what an address sent in place of the file that a job expects: the page of a login or an error. The
// bytes tell, not what the server says of them.
func checkType(from, name string, head []byte) error {
	is := mimetype.Detect(head)
	switch strings.ToLower(path.Ext(name)) {
	case ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp":
		if !strings.HasPrefix(is.String(), "image/") {
			return failf(CodeInvalidInput, "%s is no picture: its bytes are %s.", from, is)
		}
	}
	if is.Is("text/html") {
		return failf(CodeInvalidInput, "%s is a web page (text/html), not a file for a job.", from)
	}
	return nil
}
