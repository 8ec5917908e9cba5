package comfyui

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/comfyd/comfyd/internal/catalog"
)

// History is what GET /history/{id} says about a prompt that has ended. The workflow in it is passed over.
type History struct {
	Outputs map[string]json.RawMessage `json:"outputs"`
	Status  struct {
		Str       string              `json:"status_str"`
		Completed bool                `json:"completed"`
		Messages  [][]json.RawMessage `json:"messages"`
	} `json:"status"`
}

// QueueInfo is ComfyUI's answer to GET /prompt, and part of its status messages.
type QueueInfo struct {
	Exec struct {
		Remaining int `json:"queue_remaining"`
	} `json:"exec_info"`
}

// Note is one of the messages that ComfyUI keeps about a run, and the data of most of those on the socket.
type Note struct {
	PromptID  *string         `json:"prompt_id"`
	Node      *string         `json:"node"`
	Display   string          `json:"display_node"`
	Nodes     json.RawMessage `json:"nodes"`
	Value     float64         `json:"value"`
	Max       float64         `json:"max"`
	Timestamp int64           `json:"timestamp"`
	Status    *struct {
		QueueInfo
	} `json:"status"`
	NodeID    string `json:"node_id"`
	NodeType  string `json:"node_type"`
	Exception string `json:"exception_type"`
	Message   string `json:"exception_message"`
}

// Message returns the last message of a kind, nil without one.
func (e *History) Message(kind string) *Note {
	for i := len(e.Status.Messages) - 1; i >= 0; i-- {
		m := e.Status.Messages[i]
		var name string
		if len(m) != 2 || json.Unmarshal(m[0], &name) != nil || name != kind {
			continue
		}
		n := new(Note)
		if json.Unmarshal(m[1], n) == nil {
			return n
		}
	}
	return nil
}

// Times are ComfyUI's word on when the prompt started and ended, zero where it has none.
func (e *History) Times() (started, ended time.Time) {
	if n := e.Message("execution_start"); n != nil && n.Timestamp > 0 {
		started = time.UnixMilli(n.Timestamp)
	}
	for _, kind := range []string{"execution_success", "execution_error", "execution_interrupted"} {
		if n := e.Message(kind); n != nil && n.Timestamp > 0 {
			ended = time.UnixMilli(n.Timestamp)
		}
	}
	return started, ended
}

// CachedNodes returns the nodes that ComfyUI took from its cache.
func (e *History) CachedNodes() []string {
	n := e.Message("execution_cached")
	if n == nil {
		return nil
	}
	return n.nodeList()
}

func (n *Note) nodeList() []string {
	var nodes []string
	_ = json.Unmarshal(n.Nodes, &nodes) // in progress_state the field is an object
	return nodes
}

// Answer is the body of POST /prompt, for 200 and 400.
type Answer struct {
	Error      *Refusal                   `json:"error"`
	NodeErrors map[string]json.RawMessage `json:"node_errors"`
}

// Refusal is a reason in it.
type Refusal struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Details string `json:"details"`
}

// ParseAnswer reads the answer to POST /prompt of any version.
func ParseAnswer(data []byte) (*Answer, error) {
	var a struct {
		Error      json.RawMessage `json:"error"`
		NodeErrors json.RawMessage `json:"node_errors"`
	}
	if err := json.Unmarshal(catalog.Sanitize(data), &a); err != nil {
		return nil, fmt.Errorf("the answer to /prompt is not what a ComfyUI sends: %w", err)
	}
	out := new(Answer)
	_ = json.Unmarshal(a.NodeErrors, &out.NodeErrors) // {} or, in old versions, []
	if json.Unmarshal(a.Error, &out.Error) != nil {   // a string in custom handlers
		var text string
		_ = json.Unmarshal(a.Error, &text)
		out.Error = &Refusal{Message: text}
	}
	return out, nil
}
