package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
)

// direct is what everybody writes first: POST /prompt, GET /history until it is there, GET /view.
type direct struct{}

func (direct) submit(c *client, graph []byte) (string, error) {
	raw, err := c.want(200, "POST", "/prompt", fmt.Appendf(nil, `{"prompt":%s}`, graph))
	if err != nil {
		return "", err
	}
	var answer struct {
		ID string `json:"prompt_id"`
	}
	err = json.Unmarshal(raw, &answer)
	return answer.ID, err
}

func (direct) poll(c *client, id string) (state, []byte, error) {
	raw, err := c.want(200, "GET", "/history/"+id, nil)
	if err != nil || len(raw) <= len("{}") {
		return open, nil, err
	}
	return completed, raw, nil
}

func (direct) fetch(c *client, id string, answer []byte) (result, error) {
	var history map[string]struct {
		Outputs map[string]struct {
			Images []struct{ Filename, Subfolder, Type string }
		}
	}
	if err := json.Unmarshal(answer, &history); err != nil {
		return result{}, err
	}
	outputs := history[id].Outputs
	var all [][]byte
	for _, node := range slices.Sorted(maps.Keys(outputs)) {
		for _, f := range outputs[node].Images {
			q := url.Values{"filename": {f.Filename}, "subfolder": {f.Subfolder}, "type": {f.Type}}
			raw, err := c.want(200, "GET", "/view?"+q.Encode(), nil)
			if err != nil {
				return result{}, err
			}
			all = append(all, raw)
		}
	}
	return files(all), nil
}
