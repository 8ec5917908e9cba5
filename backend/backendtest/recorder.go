package backendtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"sync"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// Recorder keeps in memory what a backend says.
type Recorder struct {
	// HandleErr and StoreErr make the methods fail; set before use.
	HandleErr error
	StoreErr  error

	mu       sync.Mutex
	handles  []backend.Handle
	updates  []backend.Update
	previews []backend.Preview
	blobs    map[string][]byte
}

var _ backend.Recorder = (*Recorder)(nil)

// NewRecorder makes an empty one.
func NewRecorder() *Recorder { return &Recorder{blobs: map[string][]byte{}} }

// Handle keeps a handle.
func (r *Recorder) Handle(_ context.Context, h backend.Handle) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	h.Inputs = slices.Clone(h.Inputs)
	r.handles = append(r.handles, h)
	return r.HandleErr
}

// Progress keeps an update.
func (r *Recorder) Progress(u backend.Update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.updates = append(r.updates, u)
}

// Preview keeps a picture.
func (r *Recorder) Preview(p backend.Preview) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.previews = append(r.previews, p)
}

// Store keeps bytes.
func (r *Recorder) Store(_ context.Context, in io.Reader) (comfy.Blob, error) {
	data, err := io.ReadAll(in)
	if err != nil {
		return comfy.Blob{}, err
	}
	if r.StoreErr != nil {
		return comfy.Blob{}, r.StoreErr
	}
	sum := sha256.Sum256(data)
	key := hex.EncodeToString(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[key] = data
	return comfy.Blob{Key: key, Size: int64(len(data)), SHA256: key}, nil
}

// Handles returns what was kept so far.
func (r *Recorder) Handles() []backend.Handle {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.handles)
}

// Updates returns what was kept so far.
func (r *Recorder) Updates() []backend.Update {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.updates)
}

// Previews returns what was kept so far.
func (r *Recorder) Previews() []backend.Preview {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.previews)
}

// Blob returns what was stored under a key.
func (r *Recorder) Blob(key string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blobs[key]
}

// Blobs counts what was stored.
func (r *Recorder) Blobs() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.blobs)
}
