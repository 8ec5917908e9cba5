package store

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/comfyd/comfyd/comfy"
)

// Store keeps blobs. All methods are safe for concurrent use, also with other processes on the same store, stop when
// their context ends, and fail with [*Error].
//
// A key is a path of plain names ("outputs/<job>/<sha256>"): UTF-8, at most 1024 bytes, each part at most 200, no part
// empty or starting with a dot, no backslash or control character. A key cannot be a folder of another key.
type Store struct {
	kind kind
}

// kind is what a folder and a bucket do differently. Keys that reach it are valid.
type kind interface {
	put(ctx context.Context, key string, r io.Reader) (comfy.Blob, error)
	putHashed(ctx context.Context, prefix string, r io.Reader) (comfy.Blob, error)
	open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	stat(ctx context.Context, key string) (comfy.Blob, error)
	touch(ctx context.Context, key string) error
	remove(ctx context.Context, key string) error
	list(ctx context.Context, prefix string) iter.Seq2[comfy.Blob, error]
	ping(ctx context.Context) error
	close() error
}

const (
	// chunk is how much of a blob is in memory while it is copied.
	chunk = 64 << 10
	// freshFor is how old a blob may be that Touch leaves as it is, where renewing it means to write it again.
	freshFor = time.Hour
)

// Open opens the store that rawURL names. A path or file:///path is a folder, made where there is none; s3://bucket,
// azblob://container and (unless built with the tag nogcs) gs://bucket are buckets, which must exist, with the
// parameters that gocloud.dev/blob documents, such as ?region=...&endpoint=...&use_path_style=true for servers that
// speak S3. Open does not ask a bucket's server anything: see [Store.Ping].
func Open(ctx context.Context, rawURL string) (*Store, error) {
	kind, err := open(ctx, rawURL)
	if err != nil {
		return nil, failure("open", "", err)
	}
	return &Store{kind: kind}, nil
}

func open(ctx context.Context, rawURL string) (kind, error) {
	if rawURL == "" {
		return nil, invalid("no URL given; use a path, file:///path or s3://bucket")
	}
	if !strings.Contains(rawURL, "://") {
		return openFolder(rawURL)
	}
	u, err := url.Parse(rawURL)
	if err == nil {
		_, err = url.ParseQuery(u.RawQuery) // the drivers pass over what they cannot read
	}
	if err != nil {
		// The text of these errors holds the whole URL, and with it what may be a secret.
		return nil, invalid("the store's URL cannot be read; use a path, file:///path or s3://bucket?name=value")
	}
	if u.User != nil {
		return nil, invalid("the store's URL holds credentials; give them by the provider's own variables, such as AWS_ACCESS_KEY_ID")
	}
	if u.Scheme != "file" {
		return openBucket(ctx, u)
	}
	if (u.Host != "" && u.Host != "localhost") || u.Path == "" || u.RawQuery != "" {
		return nil, invalid("%s is no folder; write file:///absolute/path, or the path alone", u)
	}
	return openFolder(filepath.FromSlash(u.Path))
}

// FolderOf is the folder of the store that rawURL names; empty where it is none, or the URL is wrong.
func FolderOf(rawURL string) string {
	if rawURL != "" && !strings.Contains(rawURL, "://") {
		return rawURL
	}
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "file" {
		return ""
	}
	return filepath.FromSlash(u.Path)
}

// Put stores what r yields under key, in place of what was there. Readers see the old bytes or the new ones, never a
// part. When r fails, nothing is stored, and its error is returned, wrapped. A key whose last part is a SHA-256 takes
// only those bytes. The blob returned has no Modified.
func (s *Store) Put(ctx context.Context, key string, r io.Reader) (comfy.Blob, error) {
	if err := checkKey(key); err != nil {
		return comfy.Blob{}, failure("put", key, err)
	}
	b, err := s.kind.put(ctx, key, r)
	return b, failure("put", key, err)
}

// PutHashed stores what r yields under prefix + the hex SHA-256 of the bytes. prefix ends with a slash. Where the blob
// is there already, its Modified is brought up to the present, so that whoever removes by age sees that it is in use.
func (s *Store) PutHashed(ctx context.Context, prefix string, r io.Reader) (comfy.Blob, error) {
	if err := checkKey(prefix + strings.Repeat("0", 64)); err != nil {
		return comfy.Blob{}, failure("put", prefix, err)
	}
	if !strings.HasSuffix(prefix, "/") {
		return comfy.Blob{}, failure("put", prefix, invalid("a prefix ends with a slash"))
	}
	b, err := s.kind.putHashed(ctx, prefix, r)
	return b, failure("put", prefix, err)
}

// Open reads length bytes of a blob from offset on; length -1 means to its end. A range is cut at the blob's end; one
// that starts behind it yields no bytes and no error. ctx must live as long as the reader, whose errors are [*Error]
// too: a connection that broke is never mistaken for the end.
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := checkKey(key); err != nil {
		return nil, failure("open", key, err)
	}
	if offset < 0 || length < -1 {
		return nil, failure("open", key, invalid("no range starts at %d and has %d bytes", offset, length))
	}
	r, err := s.kind.open(ctx, key, offset, length)
	if err != nil {
		return nil, failure("open", key, err)
	}
	return &reader{ReadCloser: r, key: key}, nil
}

// Stat tells a blob's size and when it was stored. SHA256 is set where the key says it.
func (s *Store) Stat(ctx context.Context, key string) (comfy.Blob, error) {
	if err := checkKey(key); err != nil {
		return comfy.Blob{}, failure("stat", key, err)
	}
	b, err := s.kind.stat(ctx, key)
	return b, failure("stat", key, err)
}

// Touch brings a blob's Modified up to the present without its bytes at hand. Some object stores keep the old time when
// an object is copied onto itself; there, only a blob that is older than an hour is renewed, by writing it again. A key
// that is not there is fs.ErrNotExist.
func (s *Store) Touch(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return failure("touch", key, err)
	}
	return failure("touch", key, s.kind.touch(ctx, key))
}

// Delete removes a blob. A key that is not there is no error.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return failure("delete", key, err)
	}
	return failure("delete", key, s.kind.remove(ctx, key))
}

// List yields the blobs whose keys start with prefix, in the order of their keys' bytes, as Stat would. After an error
// it ends. Blobs that are stored or deleted meanwhile may or may not be among them.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[comfy.Blob, error] {
	return func(yield func(comfy.Blob, error) bool) {
		if err := checkPrefix(prefix); err != nil {
			yield(comfy.Blob{}, failure("list", prefix, err))
			return
		}
		for b, err := range s.kind.list(ctx, prefix) {
			if err != nil {
				yield(comfy.Blob{}, failure("list", prefix, err))
				return
			}
			// A bucket may hold what others have put there.
			if checkKey(b.Key) == nil && !yield(b, nil) {
				return
			}
		}
	}
}

// Ping writes a small object and reads it back, and returns within 10 seconds.
func (s *Store) Ping(ctx context.Context) error {
	return failure("ping", "", s.kind.ping(ctx))
}

// Close ends the store's work. Readers that are open stay usable for a folder.
func (s *Store) Close() error {
	return failure("close", "", s.kind.close())
}

// reader types the errors of a blob's reader.
type reader struct {
	io.ReadCloser
	key string
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = failure("read", r.key, err)
	}
	return n, err
}

const pingText = "comfyd was here\n"

// checkPing compares what Ping has written with what it reads.
func checkPing(r io.Reader) error {
	got, err := io.ReadAll(io.LimitReader(r, 1+int64(len(pingText))))
	if err != nil {
		return err
	}
	if string(got) != pingText {
		return fmt.Errorf("wrote %q, but read %q", pingText, got)
	}
	return nil
}
