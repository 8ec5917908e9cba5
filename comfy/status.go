package comfy

import "time"

// State of a job, as the PRD words it.
type State string

const (
	Running   State = "RUNNING"
	Completed State = "COMPLETED"
	Failed    State = "FAILED"
)

// Phase of a running job.
type Phase string

const (
	PhaseQueued     Phase = "queued"     // waits for a GPU
	PhaseWarming    Phase = "warming"    // waits for a backend that can run it
	PhaseRunning    Phase = "running"    // ComfyUI has it
	PhaseCollecting Phase = "collecting" // its outputs are being stored
	PhaseCanceling  Phase = "canceling"  // someone asked to stop it
)

// Status is what can be said about a job: the answer of [QueryStatus] for an open one.
type Status struct {
	ID        string    `json:"id"`
	State     State     `json:"status"`
	Phase     Phase     `json:"phase,omitempty"`
	Progress  *Progress `json:"progress,omitempty"`
	Attempts  int       `json:"attempts"`
	Backend   string    `json:"backend,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// QueuePosition is the place in the backend's own queue, 0 being next; nil where nobody knows.
	QueuePosition *int `json:"queue_position,omitempty"`

	Result    *Result    `json:"result,omitempty"`  // COMPLETED
	Failure   *Failure   `json:"failure,omitempty"` // FAILED
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"` // when a terminal status is forgotten
}

// Progress of a running prompt.
type Progress struct {
	Value       float64 `json:"value"` // 0 to 1
	NodesDone   int     `json:"nodes_done"`
	NodesTotal  int     `json:"nodes_total"`
	CurrentNode string  `json:"current_node,omitempty"`
	Step        int     `json:"step,omitempty"`
	Steps       int     `json:"steps,omitempty"`
}
