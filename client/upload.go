package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
)

// Upload sends a file to the server (POST /inputs), as a stream, and returns what goes into [SubmitRequest.Images]. The
// server keeps equal content once. What can be read at any place (an *os.File, a *bytes.Reader) is sent again after a
// broken connection; any other reader is tried once.
func (c *Client) Upload(ctx context.Context, name string, r io.Reader) (InputFile, error) {
	head, tail, contentType, err := envelope(name)
	if err != nil {
		return InputFile{}, err
	}
	limit := singleTry
	body := func() (io.Reader, int64, error) {
		return io.MultiReader(bytes.NewReader(head), r, bytes.NewReader(tail)), -1, nil
	}
	if file := section(r); file != nil {
		limit = c.within()
		body = func() (io.Reader, int64, error) {
			// A section of its own for each try, because a broken one may still be reading.
			again := io.NewSectionReader(file, 0, file.Size())
			return io.MultiReader(bytes.NewReader(head), again, bytes.NewReader(tail)), file.Size() + int64(len(head)+len(tail)), nil
		}
	}
	var in InputFile
	if _, err := c.call(ctx, limit, request{
		method: http.MethodPost, path: "/inputs", header: http.Header{"Content-Type": {contentType}}, body: body,
	}, &in); err != nil {
		return InputFile{}, fmt.Errorf("cannot upload %s: %w", name, err)
	}
	if in.Ref == "" {
		return InputFile{}, fmt.Errorf("what answers at %s is not comfyd: it took a file without a reference", c.base.Redacted())
	}
	// The server may have dropped the folders of the name; the graph's name counts.
	in.Name = name
	return in, nil
}

// section is what follows in r, where r can be read at any place; otherwise nil.
func section(r io.Reader) *io.SectionReader {
	file, ok := r.(interface {
		io.ReaderAt
		io.Seeker
	})
	if !ok {
		return nil
	}
	start, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil // a pipe
	}
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	return io.NewSectionReader(file, start, end-start)
}

// envelope returns what stands before and after the file in a multipart body.
func envelope(name string) (head, tail []byte, contentType string, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if _, err := w.CreateFormFile("file", name); err != nil {
		return nil, nil, "", err
	}
	n := b.Len()
	if err := w.Close(); err != nil {
		return nil, nil, "", err
	}
	return b.Bytes()[:n:n], b.Bytes()[n:], w.FormDataContentType(), nil
}
