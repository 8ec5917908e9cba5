package client

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// Saved is a file that [Client.Save] has written.
type Saved struct {
	Path     string `json:"path"`
	NodeID   string `json:"node_id,omitempty"`
	Filename string `json:"filename"` // as the server names it; of a text, after its node
}

// CorruptError says that the bytes that came are not those that the server announced.
type CorruptError struct {
	Filename string
	Reason   string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s did not arrive whole: %s", e.Filename, e.Reason)
}

// Save writes the images, files and texts of a completed job into dir, which it makes where it is missing, and returns
// what it has written, also beside an error. A file appears under its name only when it is whole and its SHA-256 is
// right; what arrives broken is fetched once more, with a fresh link. Names that a server chose never lead out of dir,
// and a file that exists is never replaced: the new one gets a number ("a-1.png").
//
// Of a status with links (as from [Client.Wait]) no file is ever held in memory.
func (c *Client) Save(ctx context.Context, st Status, dir string) ([]Saved, error) {
	if st.Output == nil {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()

	var saved []Saved
	files := outputs(st)
	for i, o := range files {
		name, err := c.save(ctx, root, o)
		if spoiled(ctx, err) {
			// The link may have expired, too.
			if fresh, ferr := c.Status(ctx, st.ID, StatusOptions{OutputURL: true}); ferr == nil && len(outputs(fresh)) == len(files) {
				files = outputs(fresh)
			}
			name, err = c.save(ctx, root, files[i])
		}
		if err != nil {
			return saved, err
		}
		saved = append(saved, Saved{Path: filepath.Join(dir, name), NodeID: o.NodeID, Filename: o.Filename})
	}
	return saved, nil
}

// typeText is the type of an output whose Data is the text itself.
const typeText = "text"

// outputs are all files of a completed job; texts are made files.
func outputs(st Status) []Output {
	if st.Output == nil {
		return nil
	}
	all := slices.Concat(st.Output.Images, st.Output.Files)
	for _, t := range st.Output.Texts {
		o := Output{Filename: "text_" + t.NodeID + ".txt", NodeID: t.NodeID, Type: typeText, Data: t.Text}
		if t.URL != "" {
			o.Type, o.URL, o.SizeBytes = TypeURL, t.URL, t.SizeBytes
		}
		all = append(all, o)
	}
	return all
}

// spoiled says whether fetching anew may help: not where this machine's disk failed.
func spoiled(ctx context.Context, err error) bool {
	var disk *fs.PathError
	return err != nil && ctx.Err() == nil && !errors.As(err, &disk)
}

func (c *Client) save(ctx context.Context, root *os.Root, o Output) (string, error) {
	return write(root, o.Filename, func(w io.Writer) error { return c.Download(ctx, o, w) })
}

// write lets fill write a file under a name that is safe and free, and returns the name.
func write(root *os.Root, name string, fill func(io.Writer) error) (string, error) {
	tmp := ".comfyd-" + uuid.NewString() + ".tmp"
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return "", err
	}
	if err = errors.Join(fill(f), f.Close()); err == nil {
		if name, err = place(root, tmp, safeName(name)); err == nil {
			return name, nil
		}
	}
	return "", errors.Join(err, root.Remove(tmp))
}

// place moves tmp to the first free name. The name is taken with an empty file first, because a rename replaces.
func place(root *os.Root, tmp, name string) (string, error) {
	for n := 0; ; n++ {
		free := numbered(name, n)
		f, err := root.OpenFile(free, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if err := errors.Join(f.Close(), root.Rename(tmp, free)); err != nil {
			return "", errors.Join(err, root.Remove(free))
		}
		return free, nil
	}
}

// Download writes one output to w, as a stream, and checks its size and SHA-256 where the server gave them: a
// *[CorruptError] when they are wrong. By then w has what came.
func (c *Client) Download(ctx context.Context, o Output, w io.Writer) error {
	body, done, err := c.open(ctx, o)
	if err != nil {
		return fmt.Errorf("cannot fetch %q: %w", o.Filename, err)
	}
	defer done()
	if o.SizeBytes > 0 {
		body = io.LimitReader(body, o.SizeBytes+1)
	}
	hash := sha256.New()
	dst := &sink{w: io.MultiWriter(w, hash)}
	n, err := io.Copy(dst, body)
	switch {
	case dst.err != nil:
		return dst.err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return &CorruptError{o.Filename, fmt.Sprintf("it broke off after %d bytes: %v", n, err)}
	case o.SizeBytes > 0 && n != o.SizeBytes:
		return &CorruptError{o.Filename, fmt.Sprintf("its size is not the %d bytes that the server announced", o.SizeBytes)}
	case o.SHA256 != "" && !strings.EqualFold(hex.EncodeToString(hash.Sum(nil)), o.SHA256):
		return &CorruptError{o.Filename, "its SHA-256 is not the one that the server announced"}
	}
	return nil
}

// sink remembers its own failure, so that a full disk is told from a broken connection.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (n int, err error) {
	n, s.err = s.w.Write(p)
	return n, s.err
}

// open starts reading an output. The caller calls done after.
func (c *Client) open(ctx context.Context, o Output) (body io.Reader, done func(), err error) {
	switch o.Type {
	case typeText:
		return strings.NewReader(o.Data), func() {}, nil
	case TypeBase64:
		return base64.NewDecoder(base64.StdEncoding, strings.NewReader(o.Data)), func() {}, nil
	case TypeURL:
	default:
		return nil, nil, fmt.Errorf("it comes as %q, which this client does not know", o.Type)
	}
	if c.baseErr != nil {
		return nil, nil, c.baseErr
	}
	link, err := c.base.Parse(o.URL)
	if err != nil {
		return nil, nil, err
	}
	err = c.retry(ctx, c.within(), func(ctx context.Context) error {
		ctx, watch := watchSilence(ctx, c.silence)
		resp, err := c.send(ctx, watch, request{method: http.MethodGet}, link.String())
		if err != nil {
			watch.stop()
			return err
		}
		body = watch.reader(resp.Body)
		done = func() {
			_ = resp.Body.Close()
			watch.stop()
		}
		return nil
	})
	return body, done, err
}
