package comfyhttp

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/comfyd/comfyd/backend/comfyui"
)

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

// history returns nil for a prompt that has not ended or that nobody knows.
func (s *server) history(ctx context.Context, id string) (*comfyui.History, error) {
	var all map[string]*comfyui.History
	if err := s.get(ctx, s.t.call, "/history/"+url.PathEscape(id), &all); err != nil {
		return nil, err
	}
	return all[id], nil
}
