package modal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
)

// open streams n bytes of a result from an offset on, to its end where n is negative. Small results lie in Modal's
// answer itself, others in its blob store. A result whose blob is not there fails with errGone.
func (b *Backend) open(ctx context.Context, r *pb.GenericResult, off, n int64) (io.ReadCloser, error) {
	if r.WhichDataOneof() != pb.GenericResult_DataBlobId_case {
		data := r.GetData()
		data = data[min(off, int64(len(data))):]
		if n >= 0 {
			data = data[:min(n, int64(len(data)))]
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	quick, done := context.WithTimeout(ctx, b.t.call)
	defer done()
	// Each time anew: the URL is signed, and expires.
	blob, err := b.client.raw.BlobGet(quick, pb.BlobGetRequest_builder{BlobId: r.GetDataBlobId()}.Build())
	if isNotFound(err) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	return b.get(ctx, blob.GetDownloadUrl(), off, n)
}

// get streams a part of what lies at a URL. Its errors do not hold the URL, which is as good as a password.
func (b *Backend) get(ctx context.Context, from string, off, n int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	body := &download{cancel: cancel, after: b.t.blob}
	body.idle = time.AfterFunc(b.t.blob, func() {
		body.stuck.Store(true)
		cancel()
	})
	res, err := b.request(ctx, from, off, n)
	if err != nil {
		body.idle.Stop()
		cancel()
		return nil, body.explain(err)
	}
	body.idle.Stop()
	body.body, body.left = res.Body, n
	err = partial(res, off)
	if err == nil && res.StatusCode == http.StatusOK && off > 0 { // it does not know Range
		_, err = io.CopyN(io.Discard, unlimited{body}, off)
	}
	if err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}

func (b *Backend) request(ctx context.Context, from string, off, n int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, errors.New("the URL that Modal names for the result cannot be read")
	}
	switch {
	case n >= 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	case off > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", off))
	}
	req.Header.Set("Accept-Encoding", "identity")
	res, err := b.http.Do(req)
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return res, err
}

// partial checks that the answer holds what was asked for.
func partial(res *http.Response, off int64) error {
	switch res.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusPartialContent:
		if at := res.Header.Get("Content-Range"); !strings.HasPrefix(at, fmt.Sprintf("bytes %d-", off)) {
			return fmt.Errorf("the blob store sent the part %q, and the one from byte %d was asked for", at, off)
		}
		return nil
	case http.StatusNotFound, http.StatusGone:
		return errGone
	case http.StatusRequestedRangeNotSatisfiable:
		return &foreign{fmt.Sprintf("it ends before byte %d", off)}
	}
	return fmt.Errorf("the blob store answered %s", res.Status)
}

// download is the body of an answer of the blob store. A read in which nothing arrives is given up; the time in which
// nobody reads does not count.
type download struct {
	body   io.ReadCloser
	left   int64 // negative for no end
	idle   *time.Timer
	after  time.Duration
	stuck  atomic.Bool
	cancel context.CancelFunc
}

func (d *download) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	if d.left > 0 {
		p = p[:min(int64(len(p)), d.left)]
	}
	n, err := unlimited{d}.Read(p)
	if d.left > 0 {
		d.left -= int64(n)
	}
	return n, err
}

func (d *download) Close() error {
	d.idle.Stop()
	d.cancel()
	return d.body.Close()
}

func (d *download) explain(err error) error {
	if d.stuck.Load() {
		return fmt.Errorf("the blob store sent nothing for %s", d.after)
	}
	return err
}

// unlimited reads what a download gets, whatever was asked for.
type unlimited struct{ d *download }

func (u unlimited) Read(p []byte) (int, error) {
	u.d.idle.Reset(u.d.after)
	n, err := u.d.body.Read(p)
	u.d.idle.Stop()
	if err != nil && err != io.EOF {
		err = u.d.explain(err)
	}
	return n, err
}

// firstPart is how much of a result is asked for at first.
const firstPart = 64 << 10

// growing reads a result from its beginning in parts, the first small, so that its head costs little however long the
// whole is.
type growing struct {
	open func(off, n int64) (io.ReadCloser, error)
	off  int64 // of the part
	size int64
	read int64 // of the part
	part io.ReadCloser
	end  bool
}

func newGrowing(open func(off, n int64) (io.ReadCloser, error)) *growing {
	return &growing{open: open, size: firstPart}
}

func (g *growing) Read(p []byte) (int, error) {
	for !g.end {
		if g.part == nil {
			part, err := g.open(g.off, g.size)
			var short *foreign
			if errors.As(err, &short) && g.off > 0 { // the part before was the last
				break
			}
			if err != nil {
				return 0, err
			}
			g.part, g.read = part, 0
		}
		n, err := g.part.Read(p)
		g.read += int64(n)
		if err == io.EOF {
			g.end = g.read < g.size
			g.Close()
			g.off, g.size = g.off+g.read, 8*g.size
			err = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.EOF
}

func (g *growing) Close() {
	if g.part != nil {
		g.part.Close()
		g.part = nil
	}
}
