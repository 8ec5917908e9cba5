package comfy

import (
	"encoding/json"
	"time"
)

// Request is the input of [WorkflowName]: one job. It is the body of POST /submit_workflow after the API has moved
// every byte that does not belong into Temporal's history to the store.
type Request struct {
	// Workflow is the graph in ComfyUI's API format, as a JSON object or as a JSON string that holds one; at most
	// [MaxInlineWorkflow] bytes. Its numbers keep their digits.
	Workflow json.RawMessage `json:"workflow,omitempty"`
	// WorkflowRef names a graph in the store instead, such as one that was sent to POST /inputs; exactly one of the two is
	// set.
	WorkflowRef string `json:"workflow_ref,omitempty"`
	// Images are input files that the graph names.
	Images []Input `json:"images,omitempty"`
	// TimeoutSeconds limits the run, not the wait for a GPU; 0 means the server's default.
	TimeoutSeconds int `json:"timeout_seconds,omitempty"`
	// StartTimeoutSeconds limits the wait; 0 means the server's default.
	StartTimeoutSeconds int `json:"start_timeout_seconds,omitempty"`
	// Priority is 1 (first) to 5 (last); 0 means 3.
	Priority int `json:"priority,omitempty"`
	// Backend asks for one pool by name; empty means the first that fits.
	Backend string `json:"backend,omitempty"`
	// GPU asks for a kind of GPU that a pool offers, such as "H100"; empty means the pool's own.
	GPU string `json:"gpu,omitempty"`
	// Metadata is the caller's own labels: found again in lists, never interpreted.
	Metadata map[string]string `json:"metadata,omitempty"`
	// ExtraPNGInfo is embedded by ComfyUI into the images it saves (the editor's "workflow").
	ExtraPNGInfo json.RawMessage `json:"extra_pnginfo,omitempty"`
	// StripMetadata removes the graph that ComfyUI embeds into PNG and WebP files.
	StripMetadata bool `json:"strip_metadata,omitempty"`
	// WebhookURL is told how the job has ended; empty: nobody is.
	WebhookURL string `json:"webhook_url,omitempty"`
	// Revision is the [Revision] that the API knows which sent the job, and that its workers therefore know, too. Others
	// leave it 0.
	Revision int `json:"revision,omitempty"`
}

// Revision counts the orders in which the workflow has taken its steps. From 1 on, it looks for a backend that is ready
// before it waits for one. A job that names its revision needs no note of it in its history. It stays 1: later changes go by
// workflow.GetVersion (docs/releasing.md).
const Revision = 1

// MaxInlineWorkflow is the largest graph that travels in a [Request] itself. Temporal refuses payloads above 2 MiB.
const MaxInlineWorkflow = 1 << 20

// Input is a file that a graph names, by reference.
type Input struct {
	// Name is what the graph calls it: "photo.png" or "folder/photo.png".
	Name string `json:"name"`
	// Ref is its key in the store: what POST /inputs returned, or the Ref of an [Output] of another job.
	Ref string `json:"ref"`
	// SHA256 and Size may be left out: Ref ends in the one, and the store knows the other.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size_bytes"`
}

// Blob is what the store knows about a stored object.
type Blob struct {
	Key      string    `json:"key"`
	Size     int64     `json:"size_bytes"`
	SHA256   string    `json:"sha256,omitempty"`
	Modified time.Time `json:"modified,omitzero"`
}

// Result is what a completed job has made. Every file in it is stored whole, and its bytes match SHA256.
type Result struct {
	Images   []Output `json:"images"`
	Files    []Output `json:"files,omitempty"` // video, audio, latents and what else is not an image
	Texts    []Text   `json:"texts,omitempty"`
	Cached   bool     `json:"cached"` // nothing but the nodes that save ran: ComfyUI had the rest in its cache
	Attempts int      `json:"attempts"`
	Backend  string   `json:"backend"`
	Metrics  Metrics  `json:"metrics"`
}

// Output is one file.
type Output struct {
	Filename    string `json:"filename"`
	Subfolder   string `json:"subfolder,omitempty"`
	Ref         string `json:"ref"` // key in the store
	NodeID      string `json:"node_id"`
	ContentType string `json:"content_type"`
	SizeBytes   int64  `json:"size_bytes"`
	SHA256      string `json:"sha256"`
	Width       int    `json:"width,omitempty"`
	Height      int    `json:"height,omitempty"`
	// Temp says that the node previews rather than saves (ComfyUI's folder "temp").
	Temp bool `json:"temp,omitempty"`
}

// Text is one text that a node showed. A long one lies in the store under Ref.
type Text struct {
	NodeID string `json:"node_id"`
	Text   string `json:"text,omitempty"`
	Ref    string `json:"ref,omitempty"`
	Size   int64  `json:"size_bytes,omitempty"`
}

// Metrics tell where a job's time went, in milliseconds. Total is from submission to end.
type Metrics struct {
	QueueMS     int64   `json:"queue_ms"`
	ColdStartMS int64   `json:"cold_start_ms"`
	ExecutionMS int64   `json:"execution_ms"`
	CollectMS   int64   `json:"collect_ms"`
	TotalMS     int64   `json:"total_ms"`
	GPU         string  `json:"gpu,omitempty"`
	GPUSeconds  float64 `json:"gpu_seconds"`
}
