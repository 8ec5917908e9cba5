// Package faults kills, pauses, cuts off and overfeeds the real processes of comfyd, and holds what its clients saw against
// its promises. The tests are named after the rows of docs/faults.md; this file and check.go are what they judge by.
package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Event is one call of a client, and what came of it.
type Event struct {
	Began, Ended time.Time
	Tenant       string
	Method, Path string
	// Job is the job that the call was about: of a submission, the one that the answer named. Empty where there was none.
	Job string
	// Key is the Idempotency-Key of a submission.
	Key string
	// Code is the HTTP status, 0 where no whole answer came.
	Code   int
	Header http.Header
	Body   map[string]any
	// Err says why no answer came.
	Err string
}

// State is what an answer said of its job: "COMPLETED" or "FAILED" of an ended one, "RUNNING", or "" where it said nothing.
func (e *Event) State() string {
	s, _ := e.Body["status"].(string)
	if (s == "RUNNING" && e.Code == http.StatusAccepted) || ((s == "COMPLETED" || s == "FAILED") && e.Code == http.StatusOK) {
		return s
	}
	return ""
}

// Ended tells whether a state is an end.
func ended(state string) bool { return state == "COMPLETED" || state == "FAILED" }

// History is what all clients of a test have seen, in the order in which the answers came. It is safe for concurrent use.
type History struct {
	mu     sync.Mutex
	events []*Event
	marks  map[string]string // by job: the text in its graph by which its runs are counted
}

func (h *History) add(e *Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// forgetEnds leaves the submissions alone: what was seen after them has not happened in the backup that was restored.
func (h *History) forgetEnds() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = slices.DeleteFunc(h.events, func(e *Event) bool { return !isSubmission(e) })
}

// Events is a copy of what has been seen so far.
func (h *History) Events() []*Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*Event(nil), h.events...)
}

// Mark notes by which text the runs of a job are counted.
func (h *History) Mark(job, mark string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.marks == nil {
		h.marks = map[string]string{}
	}
	h.marks[job] = mark
}

// Marks are the jobs' marks, by job.
func (h *History) Marks() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]string{}
	for k, v := range h.marks {
		out[k] = v
	}
	return out
}

// Client is a client of comfyd that remembers every answer.
type Client struct {
	URL, Tenant, Secret string
	History             *History
}

// callTimeout is longer than any answer may take: the API holds ?wait= for 60 s at most.
const callTimeout = 90 * time.Second

// Do makes a call about a job (empty for none) and notes what came of it.
func (c *Client) Do(ctx context.Context, method, path, job string, body any, header http.Header) *Event {
	e := &Event{Began: time.Now(), Tenant: c.Tenant, Method: method, Path: path, Job: job, Key: header.Get("Idempotency-Key")}
	if err := c.do(ctx, e, body, header); err != nil {
		e.Err, e.Code, e.Body = err.Error(), 0, nil
	}
	e.Ended = time.Now()
	if id, ok := e.Body["id"].(string); ok && method == http.MethodPost && job == "" {
		e.Job = id
	}
	c.History.add(e)
	return e
}

func (c *Client) do(ctx context.Context, e *Event, body any, header http.Header) error {
	ctx, done := context.WithTimeout(ctx, callTimeout)
	defer done()
	var r io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("the body: %w", err)
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, e.Method, c.URL+e.Path, r)
	if err != nil {
		return fmt.Errorf("the request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.Secret)
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the call: %w", err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("the answer broke off: %w", err)
	}
	e.Code, e.Header = res.StatusCode, res.Header
	if err := json.Unmarshal(raw, &e.Body); err != nil {
		return fmt.Errorf("the answer is no JSON: %w", err)
	}
	return nil
}
