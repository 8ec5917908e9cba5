package client

import (
	"encoding/json"
	"time"

	"github.com/comfyd/comfyd/comfy"
)

// SubmitRequest is a job to be run: the body of POST /submit_workflow.
type SubmitRequest struct {
	// Workflow is the graph in ComfyUI's API format, or the workflow as ComfyUI's editor saves it, which the server
	// converts where it can do so safely. Numbers keep their digits.
	Workflow json.RawMessage `json:"workflow"`
	// Images are the input files that the graph names, of any kind.
	Images []InputFile `json:"images,omitempty"`
	// Metadata is the caller's own labels.
	Metadata map[string]string `json:"metadata,omitempty"`
	// TimeoutSeconds limits the run, not the wait for a GPU; 0 means the server's default.
	TimeoutSeconds int `json:"timeout_seconds,omitempty"`
	// Priority is 1 (first) to 5 (last); 0 means 3.
	Priority int `json:"priority,omitempty"`
	// Backend asks for one pool by name; empty means the first that fits.
	Backend string `json:"backend,omitempty"`
	// ExtraPNGInfo is embedded by ComfyUI into the images it saves.
	ExtraPNGInfo json.RawMessage `json:"extra_pnginfo,omitempty"`
	// StripMetadata asks for images without the graph in them.
	StripMetadata bool `json:"strip_metadata,omitempty"`
	// WebhookURL is told how the job has ended.
	WebhookURL string `json:"webhook_url,omitempty"`
	// IdempotencyKey makes a repeated submission the same job; a random UUID when empty.
	IdempotencyKey string `json:"-"`
}

// InputFile is a file that a graph names; one of Image and Ref is set.
type InputFile struct {
	// Name is what the graph calls it: "photo.png" or "folder/photo.png".
	Name string `json:"name"`
	// Image is the file itself, as base64 or as a data URI, or an https URL that the server fetches it from.
	Image string `json:"image,omitempty"`
	// Ref is what [Client.Upload] returned for it.
	Ref string `json:"ref,omitempty"`
}

// Job is an accepted submission.
type Job struct {
	ID        string      `json:"id"`
	State     comfy.State `json:"status"`
	StatusURL string      `json:"status_url,omitempty"`
	CancelURL string      `json:"cancel_url,omitempty"`
	// Replayed says that the idempotency key had started this job before.
	Replayed bool `json:"-"`
}

// BatchRequest are several jobs of one workflow: the body of POST /batch. One of Variations and Seeds is set.
type BatchRequest struct {
	SubmitRequest // what the jobs have in common; its IdempotencyKey is the batch's
	// Variations are what each job changes, by "<node>.<input>"; up to 100.
	Variations []map[string]any `json:"variations,omitempty"`
	// Seeds is how many jobs there shall be, each with other seeds; up to 100.
	Seeds int `json:"seeds,omitempty"`
}

// Batch are the accepted jobs of a [BatchRequest].
type Batch struct {
	ID      string     `json:"batch_id"`
	JobsURL string     `json:"jobs_url,omitempty"`
	Jobs    []BatchJob `json:"jobs"` // in the order of the variations
	// Replayed says that the idempotency key had started this batch before.
	Replayed bool `json:"-"`
}

// BatchJob is one of them.
type BatchJob struct {
	Job
	// Seeds are the ones that a batch of seeds has given it, by "<node>.<input>".
	Seeds map[string]uint64 `json:"seeds,omitempty"`
}

// Status is what the API says about a job.
type Status struct {
	ID    string      `json:"id"`
	State comfy.State `json:"status"`

	// While it runs.
	Phase         comfy.Phase     `json:"phase,omitempty"`
	Progress      *comfy.Progress `json:"progress,omitempty"`
	QueuePosition *int            `json:"queue_position,omitempty"` // 0 is next

	// When it is COMPLETED.
	Output *Outputs `json:"output,omitempty"`
	Cached bool     `json:"cached,omitempty"`
	// ZipURL is a link to all outputs in one file, in a status with links.
	ZipURL string `json:"zip_url,omitempty"`

	// When it is FAILED.
	Error      string           `json:"error,omitempty"`
	Code       comfy.Code       `json:"code,omitempty"`
	NodeID     string           `json:"node_id,omitempty"`
	NodeErrors comfy.NodeErrors `json:"node_errors,omitempty"`

	Attempts  int            `json:"attempts,omitempty"`
	Backend   string         `json:"backend,omitempty"`
	CreatedAt time.Time      `json:"created_at,omitzero"`
	EndedAt   *time.Time     `json:"ended_at,omitempty"`
	ExpiresAt *time.Time     `json:"expires_at,omitempty"` // when an ended job is forgotten
	Metrics   *comfy.Metrics `json:"metrics,omitempty"`
}

// Ended says whether the job has reached its end, which never changes.
func (s *Status) Ended() bool { return s.State == comfy.Completed || s.State == comfy.Failed }

// Err is nil unless the job has failed; then it is a *[comfy.Failure].
func (s *Status) Err() error {
	if s.State != comfy.Failed {
		return nil
	}
	f := &comfy.Failure{
		Code: s.Code, Message: s.Error, NodeID: s.NodeID, NodeErrors: s.NodeErrors, Attempts: s.Attempts, Backend: s.Backend,
	}
	if s.Metrics != nil {
		f.Metrics = *s.Metrics
	}
	return f
}

// Outputs are what a completed job has made.
type Outputs struct {
	Images []Output `json:"images"`
	Files  []Output `json:"files,omitempty"` // video, audio, latents
	Texts  []Text   `json:"texts,omitempty"`
}

// Types of [Output.Type].
const (
	TypeBase64 = "base64"
	TypeURL    = "url"
)

// Output is one file.
type Output struct {
	Filename string `json:"filename"`
	// Type says where the bytes are: [TypeBase64] in Data, or [TypeURL] behind URL.
	Type string `json:"type"`
	Data string `json:"data,omitempty"`
	// URL needs no key, until it expires; the status gives a new one.
	URL          string     `json:"url,omitempty"`
	URLExpiresAt *time.Time `json:"url_expires_at,omitempty"`

	NodeID      string `json:"node_id,omitempty"`
	ContentType string `json:"content_type,omitempty"`
	SizeBytes   int64  `json:"size_bytes,omitempty"`
	SHA256      string `json:"sha256,omitempty"`
	Width       int    `json:"width,omitempty"`
	Height      int    `json:"height,omitempty"`
	Subfolder   string `json:"subfolder,omitempty"`
	Temp        bool   `json:"temp,omitempty"` // a preview
}

// Text is one text that a node showed; a long one lies behind URL.
type Text struct {
	NodeID       string     `json:"node_id"`
	Text         string     `json:"text,omitempty"`
	SizeBytes    int64      `json:"size_bytes,omitempty"`
	URL          string     `json:"url,omitempty"`
	URLExpiresAt *time.Time `json:"url_expires_at,omitempty"`
}
