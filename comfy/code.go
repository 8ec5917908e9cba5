package comfy

import "fmt"

// Code says why a job failed. The list is closed: clients may switch on it.
type Code string

const (
	// InvalidWorkflow: ComfyUI cannot run this graph; the same graph fails again.
	InvalidWorkflow Code = "invalid_workflow"
	// NodeFailed: a node raised an exception; Failure.NodeID names it.
	NodeFailed Code = "node_failed"
	// OutOfMemory: the GPU's or the machine's memory did not hold the job.
	OutOfMemory Code = "out_of_memory"
	// Timeout: the job ran longer than its limit, or stopped making progress.
	Timeout Code = "timeout"
	// Canceled: someone asked for it.
	Canceled Code = "canceled"
	// BackendLost: the ComfyUI that ran the job died or forgot it, as often as comfyd was willing to try again.
	BackendLost Code = "backend_lost"
	// BackendUnavailable: no ComfyUI could start the job within the time to start.
	BackendUnavailable Code = "backend_unavailable"
	// OutputLost: the job ran, but an output that ComfyUI reported could not be fetched whole.
	OutputLost Code = "output_lost"
	// Storage: the outputs could not be stored.
	Storage Code = "storage"
	// Internal: a fault of comfyd.
	Internal Code = "internal"
)

// Retryable tells whether the same job may do better when a parent's retry policy starts it again: what comfyd, the store
// or a GPU was to blame for. What the job itself has caused it causes again, and a GPU would pay for it.
func (c Code) Retryable() bool {
	switch c {
	case BackendLost, BackendUnavailable, OutputLost, Storage, Internal:
		return true
	}
	return false
}

// Failure is why a job failed, for a person and for a program. It travels as the details of the Temporal application
// error whose type is Code, and is the result of a failed job's status.
type Failure struct {
	Code Code `json:"code"`
	// Message says what, why and what to do. It holds no traceback and no path of a server.
	Message string `json:"message"`
	// NodeID is the node that failed, where one did.
	NodeID string `json:"node_id,omitempty"`
	// NodeErrors are the reasons node by node, in ComfyUI's own shape.
	NodeErrors NodeErrors `json:"node_errors,omitempty"`
	// Attempts counts the submissions that may have run on a GPU.
	Attempts int     `json:"attempts,omitempty"`
	Backend  string  `json:"backend,omitempty"`
	Metrics  Metrics `json:"metrics"`
}

// Error makes a Failure an error.
func (f *Failure) Error() string { return fmt.Sprintf("%s: %s", f.Code, f.Message) }

// NodeErrors maps a node's ID to what is wrong with it. The shape is the one of ComfyUI's own /prompt answer
// (node_errors), so that clients written for ComfyUI read it.
type NodeErrors map[string]NodeError

// NodeError is what is wrong with one node.
type NodeError struct {
	ClassType string       `json:"class_type"`
	Errors    []InputError `json:"errors"`
	// DependentOutputs are the output nodes that cannot be made because of it; empty where nobody knows.
	DependentOutputs []string `json:"dependent_outputs"`
}

// InputError is one reason. Type is ComfyUI's where ComfyUI has one (value_not_in_list, required_input_missing, ...).
type InputError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Details string `json:"details"`
	// ExtraInfo names the input ("input_name"), what came ("received_value") and what is allowed ("allowed",
	// "nearest"), as far as known.
	ExtraInfo map[string]any `json:"extra_info,omitempty"`
}
