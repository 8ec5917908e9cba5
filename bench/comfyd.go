package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
)

// comfyd is a client that knows what the README says: POST /submit_workflow, GET /status, images as base64.
type comfyd struct{}

// status is what it reads of an answer.
type status struct {
	ID, Status string
	Output     struct {
		Images []struct {
			Data, URL, SHA256 string
		}
	}
}

func (comfyd) submit(c *client, graph []byte) (string, error) {
	raw, err := c.want(202, "POST", "/submit_workflow", fmt.Appendf(nil, `{"workflow":%s}`, graph))
	if err != nil {
		return "", err
	}
	var s status
	err = json.Unmarshal(raw, &s)
	return s.ID, err
}

func (a comfyd) poll(c *client, id string) (state, []byte, error) { return a.ask(c, "/status/"+id) }

func (a comfyd) wait(c *client, id string, seconds int) (state, []byte, error) {
	return a.ask(c, fmt.Sprintf("/status/%s?wait=%d", id, seconds))
}

func (comfyd) ask(c *client, path string) (state, []byte, error) {
	r, err := c.call("GET", path, nil)
	switch {
	case err != nil:
		return open, nil, err
	case r.code == 202:
		return open, nil, nil
	case r.code != 200:
		return open, nil, fmt.Errorf("%s: %d %.300s", path, r.code, r.body)
	}
	// The state stands before the images, which may be many megabytes.
	switch head := r.body[:min(len(r.body), 256)]; {
	case bytes.Contains(head, []byte(`"status":"COMPLETED"`)):
		return completed, r.body, nil
	case bytes.Contains(head, []byte(`"status":"FAILED"`)):
		return ended, r.body, nil
	}
	return open, nil, fmt.Errorf("%s: no status: %.300s", path, r.body)
}

func (comfyd) fetch(_ *client, id string, answer []byte) (result, error) {
	return result{bytes: len(answer), images: func() ([][]byte, error) {
		var s status
		if err := json.Unmarshal(answer, &s); err != nil {
			return nil, err
		}
		if s.ID != id {
			return nil, fmt.Errorf("the answer is about %s", s.ID)
		}
		var all [][]byte
		for _, image := range s.Output.Images {
			raw, err := base64.StdEncoding.DecodeString(image.Data)
			if err != nil {
				return nil, err
			}
			if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != image.SHA256 {
				return nil, fmt.Errorf("the bytes are not those of the sha256 %s", image.SHA256)
			}
			all = append(all, raw)
		}
		return all, nil
	}}, nil
}

func (comfyd) links(c *client, id string) (result, error) {
	raw, err := c.want(200, "GET", "/status/"+id+"?output=url", nil)
	if err != nil {
		return result{}, err
	}
	var s status
	if err := json.Unmarshal(raw, &s); err != nil {
		return result{}, err
	}
	var all [][]byte
	for _, image := range s.Output.Images {
		path, err := pathOf(image.URL)
		if err != nil {
			return result{}, err
		}
		file, err := c.want(200, "GET", path, nil)
		if err != nil {
			return result{}, err
		}
		all = append(all, file)
	}
	return files(all), nil
}

// pathOf is an address without its host, for a connection that is there already.
func pathOf(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	return u.RequestURI(), nil
}
