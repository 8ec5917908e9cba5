package main

import (
	"encoding/json"
	"fmt"
)

// peer is comfy-api-proxy: POST /api/v2/jobs, GET /api/v2/jobs/{id}, then each output's own address.
type peer struct{}

type peerJob struct {
	ID, Status string
	Outputs    []struct{ URL string }
}

func (peer) submit(c *client, graph []byte) (string, error) {
	raw, err := c.want(201, "POST", "/api/v2/jobs", fmt.Appendf(nil, `{"workflow":%s}`, graph))
	if err != nil {
		return "", err
	}
	var j peerJob
	err = json.Unmarshal(raw, &j)
	return j.ID, err
}

func (peer) poll(c *client, id string) (state, []byte, error) {
	raw, err := c.want(200, "GET", "/api/v2/jobs/"+id, nil)
	if err != nil {
		return open, nil, err
	}
	var j struct{ Status string }
	if err := json.Unmarshal(raw, &j); err != nil {
		return open, nil, err
	}
	switch j.Status {
	case "succeeded":
		return completed, raw, nil
	case "failed", "canceled", "expired":
		return ended, raw, nil
	}
	return open, nil, nil
}

func (peer) fetch(c *client, _ string, answer []byte) (result, error) {
	var j peerJob
	if err := json.Unmarshal(answer, &j); err != nil {
		return result{}, err
	}
	var all [][]byte
	for _, o := range j.Outputs {
		path, err := pathOf(o.URL)
		if err != nil {
			return result{}, err
		}
		raw, err := c.want(200, "GET", path, nil)
		if err != nil {
			return result{}, err
		}
		all = append(all, raw)
	}
	return files(all), nil
}
