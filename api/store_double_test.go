package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing/iotest"
	"time"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// fakeStore keeps objects in memory.
type fakeStore struct {
	mu      sync.Mutex
	objects map[string][]byte
	err     error
	times   map[string]time.Time
	putErr  error
	hangs   atomic.Bool      // Stat answers no more
	sizes   map[string]int64 // endless objects of this size, for large downloads
	opened  atomic.Int64
	breaks  error // of every object, after half of it
}

func (f *fakeStore) PutHashed(_ context.Context, prefix string, r io.Reader) (comfy.Blob, error) {
	if err := f.failure(); err != nil {
		return comfy.Blob{}, err
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return comfy.Blob{}, fmt.Errorf("store: source failed: %v", err)
	}
	return f.put(prefix, raw), nil
}

func (f *fakeStore) put(prefix string, raw []byte) comfy.Blob {
	sum := sha256.Sum256(raw)
	key := prefix + hex.EncodeToString(sum[:])
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[key], f.times[key] = raw, time.Now()
	return comfy.Blob{Key: key, Size: int64(len(raw)), SHA256: hex.EncodeToString(sum[:])}
}

func (f *fakeStore) Open(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := f.failure(); err != nil {
		return nil, err
	}
	f.opened.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if size, ok := f.sizes[key]; ok {
		return &counted{Reader: io.LimitReader(pattern{}, min(length, size-offset)), open: &f.opened}, nil
	}
	raw, ok := f.objects[key]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", key, fs.ErrNotExist)
	}
	raw = raw[offset:]
	if length >= 0 {
		raw = raw[:length]
	}
	if f.breaks != nil {
		return &counted{Reader: io.MultiReader(bytes.NewReader(raw[:len(raw)/2]), iotest.ErrReader(f.breaks)), open: &f.opened}, nil
	}
	return &counted{Reader: bytes.NewReader(raw), open: &f.opened}, nil
}

func (f *fakeStore) Stat(ctx context.Context, key string) (comfy.Blob, error) {
	if f.hangs.Load() {
		<-ctx.Done()
		return comfy.Blob{}, ctx.Err()
	}
	if err := f.failure(); err != nil {
		return comfy.Blob{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if size, ok := f.sizes[key]; ok {
		return comfy.Blob{Key: key, Size: size}, nil
	}
	raw, ok := f.objects[key]
	if !ok {
		return comfy.Blob{}, fmt.Errorf("stat %s: %w", key, fs.ErrNotExist)
	}
	return comfy.Blob{Key: key, Size: int64(len(raw)), Modified: f.times[key]}, nil
}

func (f *fakeStore) Touch(ctx context.Context, key string) error {
	if _, err := f.Stat(ctx, key); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.times[key] = time.Now()
	return nil
}

func (f *fakeStore) Put(_ context.Context, key string, r io.Reader) (comfy.Blob, error) {
	raw, err := io.ReadAll(r)
	if err = errors.Join(err, f.err, f.putErr); err != nil {
		return comfy.Blob{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[key], f.times[key] = raw, time.Now()
	return comfy.Blob{Key: key, Size: int64(len(raw))}, nil
}

func (f *fakeStore) Delete(_ context.Context, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.objects, key)
	return f.err
}

func (f *fakeStore) List(ctx context.Context, prefix string) iter.Seq2[comfy.Blob, error] {
	return func(yield func(comfy.Blob, error) bool) {
		for _, key := range f.keys(prefix) {
			if b, err := f.Stat(ctx, key); !yield(b, err) || err != nil {
				return
			}
		}
	}
}

func (f *fakeStore) keys(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var keys []string
	for key := range f.objects {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (f *fakeStore) Ping(context.Context) error { return f.failure() }

// fail makes every call fail, while the server may be using the store.
func (f *fakeStore) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeStore) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// counted counts itself out on Close.
type counted struct {
	io.Reader
	open *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return nil
}

// pattern is an endless file.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i * 31)
	}
	return len(p), nil
}

type fakeCatalogs struct {
	converted func(file []byte) (json.RawMessage, error)
	refuse    atomic.Pointer[comfy.Failure]
	refuses   func(*comfy.Graph) *comfy.Failure
	dead      error
	panics    bool
}

func (f *fakeCatalogs) Check(_ context.Context, g *comfy.Graph, _ []string, _ backend.Want) *comfy.Failure {
	if f.panics {
		panic("secret detail")
	}
	if f.refuses != nil {
		return f.refuses(g)
	}
	return f.refuse.Load()
}

func (f *fakeCatalogs) Convert(_ context.Context, file []byte, _ backend.Want) (json.RawMessage, error) {
	if f.converted == nil {
		return nil, &comfy.Failure{Code: comfy.BackendUnavailable, Message: "no backend has told yet which nodes it has"}
	}
	return f.converted(file)
}

func (f *fakeCatalogs) Models(_ context.Context, folder string) (map[string]map[string][]string, []string, error) {
	all := map[string]map[string][]string{"vae": {}, "checkpoints": {"b.safetensors": {"local", "url"}, "a.ckpt": {"url"}}}
	switch {
	case folder == "":
		return all, nil, f.dead
	case all[folder] == nil:
		return nil, []string{"checkpoints"}, f.dead
	}
	return map[string]map[string][]string{folder: all[folder]}, nil, f.dead
}

func (f *fakeCatalogs) Nodes(context.Context) (map[string][]string, error) {
	return map[string][]string{"SaveImage": {"url"}, "A/B C|x": {"local", "url"}}, f.dead
}

func (f *fakeCatalogs) Node(_ context.Context, class string) (json.RawMessage, []string, []string, error) {
	if class == "A/B C|x" {
		return json.RawMessage(`{"input":{"required":{"z":["INT"],"a":["IMAGE"]}}}`), []string{"local", "url"}, nil, f.dead
	}
	return nil, nil, []string{"SaveImage", "SaveImages"}, f.dead
}

func (f *fakeCatalogs) Alive(context.Context) error { return f.dead }
