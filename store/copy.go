package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// intake copies r to w, counting and hashing; an error of r comes out as a sourceError.
func intake(ctx context.Context, w io.Writer, r io.Reader) (size int64, digest string, err error) {
	h := sha256.New()
	size, err = io.CopyBuffer(&hashing{w: w, h: h}, &source{ctx: ctx, r: r}, make([]byte, chunk))
	if err != nil {
		return 0, "", err
	}
	return size, hex.EncodeToString(h.Sum(nil)), nil
}

// hashing hides the methods of w by which io.Copy would pass over its buffer.
type hashing struct {
	w io.Writer
	h hash.Hash
}

func (h *hashing) Write(p []byte) (int, error) {
	h.h.Write(p)
	return h.w.Write(p)
}

// source hides the methods of r for the same reason, and ends with its context.
type source struct {
	ctx context.Context
	r   io.Reader
}

func (s *source) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		err = &sourceError{err: err}
	}
	return n, err
}

// checkDigest refuses bytes that are not those which a key promises.
func checkDigest(key, digest string) error {
	if want := digestIn(key); want != "" && want != digest {
		return fmt.Errorf("the bytes' SHA-256 is %s, not the one in the key: they were damaged on their way, or the key is wrong", digest)
	}
	return nil
}
