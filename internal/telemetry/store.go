package telemetry

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/store"
)

// Store is a store whose traffic is counted. It does everything else as the store does.
type Store struct {
	*store.Store
	in, out prometheus.Counter
	errors  *prometheus.CounterVec
}

// Store counts the traffic of s.
func (t *Telemetry) Store(s *store.Store) *Store {
	for _, op := range []string{"put", "open", "read"} {
		t.storeErrors.WithLabelValues(op)
	}
	return &Store{Store: s, in: t.storeBytes.WithLabelValues("in"), out: t.storeBytes.WithLabelValues("out"), errors: t.storeErrors}
}

// Put implements the method of [store.Store].
func (s *Store) Put(ctx context.Context, key string, r io.Reader) (comfy.Blob, error) {
	b, err := s.Store.Put(ctx, key, r)
	s.put(b, err)
	return b, err
}

// PutHashed implements the method of [store.Store].
func (s *Store) PutHashed(ctx context.Context, prefix string, r io.Reader) (comfy.Blob, error) {
	b, err := s.Store.PutHashed(ctx, prefix, r)
	s.put(b, err)
	return b, err
}

// Open implements the method of [store.Store].
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.Store.Open(ctx, key, offset, length)
	if err != nil {
		s.fail("open", err)
		return nil, err
	}
	return &counted{ReadCloser: r, s: s}, nil
}

func (s *Store) put(b comfy.Blob, err error) {
	s.fail("put", err)
	if err == nil {
		s.in.Add(float64(b.Size))
	}
}

// fail counts an error of the store itself. A reader that failed, or a caller that left, is not one.
func (s *Store) fail(operation string, err error) {
	var own *store.Error
	if errors.As(err, &own) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, context.Canceled) {
		s.errors.WithLabelValues(operation).Inc()
	}
}

// counted is a blob's reader.
type counted struct {
	io.ReadCloser
	s *Store
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.s.out.Add(float64(n))
	if err != nil && err != io.EOF {
		c.s.fail("read", err)
	}
	return n, err
}
