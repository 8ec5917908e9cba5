package comfyhttp

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/comfyd/comfyd/internal/catalog"
)

// queueInfo is ComfyUI's answer to GET /prompt.
type queueInfo struct {
	Exec struct {
		Remaining int `json:"queue_remaining"`
	} `json:"exec_info"`
}

// systemStats is the part of GET /system_stats that is used.
type systemStats struct {
	System struct {
		Version string `json:"comfyui_version"`
	} `json:"system"`
	Devices []struct {
		Name string `json:"name"`
		Type string `json:"type"`
	} `json:"devices"`
}

// device names the first one as a person would: "cuda:0 NVIDIA L40S : cudaMallocAsync" is an NVIDIA L40S.
func (s systemStats) device() string {
	if len(s.Devices) == 0 {
		return ""
	}
	name, _, _ := strings.Cut(s.Devices[0].Name, " : ")
	if first, rest, ok := strings.Cut(name, " "); ok && strings.HasPrefix(first, s.Devices[0].Type) {
		return rest
	}
	return name
}

// queueState is GET /queue: [number, prompt_id, workflow, extra_data, outputs] for each prompt.
type queueState struct {
	Running []queued `json:"queue_running"`
	Pending []queued `json:"queue_pending"`
}

type queued struct {
	number float64
	id     string
}

func (q *queued) UnmarshalJSON(data []byte) error {
	var item []json.RawMessage
	if err := json.Unmarshal(data, &item); err != nil || len(item) < 2 {
		return err
	}
	_ = json.Unmarshal(item[0], &q.number) // another client's may be anything
	_ = json.Unmarshal(item[1], &q.id)
	return nil
}

func (s *server) queue(ctx context.Context) (*queueState, error) {
	q := new(queueState)
	return q, s.get(ctx, s.t.call, "/queue", q)
}

// find tells whether a prompt runs, and its place among those that wait, 0 being next and -1 meaning that it is none.
// The list is a heap, not sorted: the place is the count of smaller numbers.
func (q *queueState) find(id string) (running bool, position int) {
	for _, r := range q.Running {
		if r.id == id {
			return true, -1
		}
	}
	for _, p := range q.Pending {
		if p.id != id {
			continue
		}
		for _, other := range q.Pending {
			if other.number < p.number {
				position++
			}
		}
		return false, position
	}
	return false, -1
}

func (q *queueState) runningIDs() []string {
	var ids []string
	for _, r := range q.Running {
		ids = append(ids, r.id)
	}
	return ids
}

// historyEntry is what GET /history/{id} says about a prompt that has ended. The workflow in it is passed over.
type historyEntry struct {
	Outputs map[string]json.RawMessage `json:"outputs"`
	Status  struct {
		Str       string              `json:"status_str"`
		Completed bool                `json:"completed"`
		Messages  [][]json.RawMessage `json:"messages"`
	} `json:"status"`
}

// history returns nil for a prompt that has not ended or that nobody knows.
func (s *server) history(ctx context.Context, id string) (*historyEntry, error) {
	var all map[string]*historyEntry
	if err := s.get(ctx, s.t.call, "/history/"+url.PathEscape(id), &all); err != nil {
		return nil, err
	}
	return all[id], nil
}

// note is one of the messages that ComfyUI keeps about a run, and the data of most of those on the socket.
type note struct {
	PromptID  *string         `json:"prompt_id"`
	Node      *string         `json:"node"`
	Display   string          `json:"display_node"`
	Nodes     json.RawMessage `json:"nodes"`
	Value     float64         `json:"value"`
	Max       float64         `json:"max"`
	Timestamp int64           `json:"timestamp"`
	Status    *struct {
		queueInfo
	} `json:"status"`
	NodeID    string `json:"node_id"`
	NodeType  string `json:"node_type"`
	Exception string `json:"exception_type"`
	Message   string `json:"exception_message"`
}

// message returns the last message of a kind, nil without one.
func (e *historyEntry) message(kind string) *note {
	for i := len(e.Status.Messages) - 1; i >= 0; i-- {
		m := e.Status.Messages[i]
		var name string
		if len(m) != 2 || json.Unmarshal(m[0], &name) != nil || name != kind {
			continue
		}
		n := new(note)
		if json.Unmarshal(m[1], n) == nil {
			return n
		}
	}
	return nil
}

// times are ComfyUI's word on when the prompt started and ended, zero where it has none.
func (e *historyEntry) times() (started, ended time.Time) {
	if n := e.message("execution_start"); n != nil && n.Timestamp > 0 {
		started = time.UnixMilli(n.Timestamp)
	}
	for _, kind := range []string{"execution_success", "execution_error", "execution_interrupted"} {
		if n := e.message(kind); n != nil && n.Timestamp > 0 {
			ended = time.UnixMilli(n.Timestamp)
		}
	}
	return started, ended
}

// cached returns the nodes that ComfyUI took from its cache.
func (e *historyEntry) cached() []string {
	n := e.message("execution_cached")
	if n == nil {
		return nil
	}
	return n.nodeList()
}

func (n *note) nodeList() []string {
	var nodes []string
	_ = json.Unmarshal(n.Nodes, &nodes) // in progress_state the field is an object
	return nodes
}

// promptAnswer is the body of POST /prompt, for 200 and 400.
type promptAnswer struct {
	Error      *refusal                   `json:"error"`
	NodeErrors map[string]json.RawMessage `json:"node_errors"`
}

type refusal struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Details string `json:"details"`
}

func parseAnswer(data []byte) (*promptAnswer, error) {
	var a struct {
		Error      json.RawMessage `json:"error"`
		NodeErrors json.RawMessage `json:"node_errors"`
	}
	if err := json.Unmarshal(catalog.Sanitize(data), &a); err != nil {
		return nil, &callError{status: http.StatusOK, why: "the answer to /prompt is not what a ComfyUI sends", err: err}
	}
	out := new(promptAnswer)
	_ = json.Unmarshal(a.NodeErrors, &out.NodeErrors) // {} or, in old versions, []
	if json.Unmarshal(a.Error, &out.Error) != nil {   // a string in custom handlers
		var text string
		_ = json.Unmarshal(a.Error, &text)
		out.Error = &refusal{Message: text}
	}
	return out, nil
}
