// Package backend says what comfyd expects of something that runs ComfyUI prompts: the Backend interface, the handle
// that survives a worker's death, and the typed errors. It knows no backend in particular; every one of them passes the
// suite in backendtest.
package backend

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/comfyd/comfyd/comfy"
)

// Backend runs prompts on one pool of ComfyUI servers that are alike. All methods are safe for concurrent use, stop
// when their context ends, and return errors that unwrap to [*Error].
type Backend interface {
	// Pool says who this is. It never changes.
	Pool() Pool

	// Servers reports what is known about each server right now, without asking it.
	Servers() []Server

	// Refresh asks every server that answers for its catalogue anew.
	Refresh(ctx context.Context) error

	// Ready returns nil when a prompt with these needs could be handed over now. Otherwise the error is
	// BackendUnavailable (nothing is well; ask again) or InvalidWorkflow (no server here will ever run it).
	// It may start something that takes longer than the call, and then returns BackendUnavailable until that is up.
	Ready(ctx context.Context, p *Prompt) error

	// Run carries a prompt to its end and returns what it made. With a handle from an earlier attempt it re-attaches:
	// it looks for that prompt and goes on with it; only where the prompt is truly gone does it fail with
	// BackendLost. Without one it picks a server, makes the handle durable through rec, and only then posts.
	//
	// When ctx ends, Run detaches and leaves the prompt alone; to stop it is Cancel's work.
	//
	// Errors: InvalidWorkflow, NodeFailed, OutOfMemory, Canceled (interrupted by somebody), BackendLost,
	// BackendUnavailable (nothing was posted), Timeout (no sign of life for StallTimeout; the backend has put the
	// server aside).
	Run(ctx context.Context, p *Prompt, h *Handle, rec Recorder) (*Outcome, error)

	// Cancel takes a prompt out of the queue or interrupts it, and only it; it returns when the prompt is gone or ctx
	// ends. A prompt that has ended, or that nobody knows, is no error. A handle without a Server means all of them.
	Cancel(ctx context.Context, h Handle) error

	// Open streams one file of an outcome. Size is -1 where unknown. A file that is listed but gone is OutputLost.
	Open(ctx context.Context, h Handle, f File) (body io.ReadCloser, size int64, err error)

	// Release removes what a job left on the backend: inputs, outputs, history. It may be called again.
	Release(ctx context.Context, h Handle, files []File) error

	// Close stops watching the servers. Prompts run on.
	Close() error
}

// Pool names a set of servers that share a task queue.
type Pool struct {
	Name string `json:"name"` // part of the task queue's name: [a-z0-9-]
	Kind string `json:"kind"` // "url", "local", "modal"
	// Slots is how many prompts may be handed over at once: two for each server, one running and one waiting, so that
	// the GPU never idles between two jobs.
	Slots int `json:"slots"`
	// Idempotent says that a prompt which is handed over twice under one ID runs once, and both follow it.
	Idempotent bool `json:"idempotent,omitempty"`
	// Metered says that a prompt which runs on after its job's end costs money, so that the job does not end before it
	// is stopped, as long as that can be hoped for. Elsewhere it ends by itself, and what it makes is thrown away.
	Metered bool `json:"metered,omitempty"`
	// GPUs are the kinds that a job may ask for with "gpu"; none where the pool's hardware is what it is.
	GPUs []string `json:"gpus,omitempty"`
}

// Server is one ComfyUI as last seen.
type Server struct {
	Name     string    `json:"name"` // its URL without credentials, or what the backend calls it
	Healthy  bool      `json:"healthy"`
	Problem  string    `json:"problem,omitempty"` // why it is not, for a person
	Version  string    `json:"version,omitempty"` // ComfyUI's
	Device   string    `json:"device,omitempty"`  // "NVIDIA L40S", "cpu"
	LastSeen time.Time `json:"last_seen"`
	// Catalog is ComfyUI's /object_info as it came, and CatalogAt when; nil before it was first seen.
	Catalog   json.RawMessage `json:"-"`
	CatalogAt time.Time       `json:"catalog_at,omitzero"`
}

// Prompt is what is to be run.
type Prompt struct {
	JobID string
	// ID is the prompt_id under which ComfyUI runs it: a canonical lower-case UUID, new for each submission.
	ID         string
	Submission int // 1 for the first
	Graph      *comfy.Graph
	Inputs     []Input
	// ExtraPNGInfo is embedded by ComfyUI into saved images; nil for none.
	ExtraPNGInfo json.RawMessage
	// Fresh asks that nothing comes from ComfyUI's cache, because what the cache remembers has been lost.
	Fresh bool
	// StallTimeout is how long a running prompt may show no sign of life.
	StallTimeout time.Duration
	// RunTimeout is the job's limit, which the caller watches; a backend may need it for a limit of its own.
	RunTimeout time.Duration
	// GPU is one of the pool's GPUs, empty for any.
	GPU string
}

// Input is a file that the graph names.
type Input struct {
	Name   string // as in the graph
	SHA256 string // hex
	Size   int64
	Open   func(ctx context.Context) (io.ReadCloser, error)
}

// Recorder is how Run speaks to whoever called it. Its methods may be called from one goroutine at a time.
type Recorder interface {
	// Handle makes a handle durable. Run calls it before the prompt can start, wherever the backend lets it choose the
	// prompt's ID, and gives up when it fails.
	Handle(ctx context.Context, h Handle) error
	// Progress is told of news; it may drop them.
	Progress(p Update)
	// Preview is told of a picture on the way; it may drop it, and keeps none.
	Preview(p Preview)
	// Store keeps bytes that the backend hands out only once (SaveImageWebsocket's frames) and returns their blob.
	Store(ctx context.Context, r io.Reader) (comfy.Blob, error)
}

// Update is news about a prompt.
type Update struct {
	Progress comfy.Progress `json:"progress"`
	// Running is false while the prompt waits in the backend's own queue.
	Running bool `json:"running"`
	// QueuePosition is its place there, 0 being next; nil where unknown.
	QueuePosition *int `json:"queue_position,omitempty"`
}

// Preview is what a sampler has so far, as a picture. It is no output.
type Preview struct {
	NodeID      string `json:"node_id"`
	ContentType string `json:"content_type"` // "image/jpeg" or "image/png"
	Data        []byte `json:"data"`
}

// Handle finds a prompt again after whoever submitted it has died. It holds no secret.
type Handle struct {
	Pool       string `json:"pool"`
	Server     string `json:"server"` // the server's Name; empty where it is not known, and then Run asks them all
	PromptID   string `json:"prompt_id"`
	JobID      string `json:"job_id"`
	Submission int    `json:"submission"`
	// Inputs are the paths of the job's files on the backend, for Release.
	Inputs []string `json:"inputs,omitempty"`
	// CallID is Modal's function call; empty until that has been made.
	CallID string `json:"call_id,omitempty"`
	// From and To are set in an Outcome's handle: when the prompt ran, by the backend's clock. Release touches no output
	// that was written at another time, so it wants that handle.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
}

// Outcome is what a prompt has made, as the backend lists it; the bytes are still there.
type Outcome struct {
	Handle Handle `json:"handle"`
	Files  []File `json:"files,omitempty"`
	Texts  []Text `json:"texts,omitempty"`
	Cached bool   `json:"cached,omitempty"`
	// StartedAt and EndedAt are the backend's word on the run, zero where it has none.
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	// Restarts is how often the backend has begun the prompt anew by itself, because a machine of its own went away.
	Restarts    int    `json:"restarts,omitempty"`
	ColdStartMS int64  `json:"cold_start_ms,omitempty"`
	GPU         string `json:"gpu,omitempty"`
}

// File is an output that the backend names.
type File struct {
	NodeID    string `json:"node_id"`
	Key       string `json:"key"` // ComfyUI's name for the list it stood in: "images", "audio", "gifs", ...
	Filename  string `json:"filename"`
	Subfolder string `json:"subfolder,omitempty"`
	Folder    string `json:"folder"` // ComfyUI's "type": "output" or "temp"
	// Blob is set where the bytes are in the store already.
	Blob *comfy.Blob `json:"blob,omitempty"`
}

// Text is a text that a node showed.
type Text struct {
	NodeID string `json:"node_id"`
	Text   string `json:"text,omitempty"`
	// Blob is set where the text is in the store instead. Backends leave it empty.
	Blob *comfy.Blob `json:"blob,omitempty"`
}
