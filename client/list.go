package client

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/comfyd/comfyd/comfy"
)

// ListOptions say which of the key's own jobs are listed. The zero value lists all.
type ListOptions struct {
	State    comfy.State
	Code     comfy.Code        // of failed jobs
	Backend  string            // the pool
	Metadata map[string]string // labels that a job must have, all of them
	// Since and Until bound when a job was submitted: from Since on, and before Until.
	Since, Until time.Time
	// Limit is the largest number of jobs in a page, 1 to 100; 0 means the server's default.
	Limit int
	// Cursor is [JobList.Cursor] of the page before; everything else but Limit must be as it was then.
	Cursor string
}

// JobList is one page of a list.
type JobList struct {
	Jobs []ListedJob `json:"jobs"`
	// Cursor leads to the next page; empty on the last one. A page may hold fewer jobs than asked for, and none at all,
	// and still have a next one.
	Cursor string `json:"cursor,omitempty"`
}

// ListedJob is what a list tells of a job.
type ListedJob struct {
	ID        string            `json:"id"`
	State     comfy.State       `json:"status"`
	Code      comfy.Code        `json:"code,omitempty"` // why it failed
	Backend   string            `json:"backend,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
	EndedAt   *time.Time        `json:"ended_at,omitempty"`
	ExpiresAt *time.Time        `json:"expires_at,omitempty"` // when an ended job is forgotten
	StatusURL string            `json:"status_url"`
}

// List returns a page of jobs: open ones first, then by their end, the newest first. A filter that the server does not
// take is an *[Error] with HTTPStatus 400.
func (c *Client) List(ctx context.Context, o ListOptions) (JobList, error) {
	path := "/jobs"
	if q := o.query(); len(q) > 0 {
		path += "?" + q.Encode()
	}
	var page JobList
	if _, err := c.call(ctx, c.within(), request{method: http.MethodGet, path: path}, &page); err != nil {
		return JobList{}, err
	}
	if page.Jobs == nil {
		return JobList{}, errors.New("what answers at " + c.base.Redacted() + " is not comfyd: its answer has no jobs")
	}
	return page, nil
}

func (o ListOptions) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{
		"status": string(o.State), "code": string(o.Code), "backend": o.Backend, "cursor": o.Cursor,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, at := range map[string]time.Time{"since": o.Since, "until": o.Until} {
		if !at.IsZero() {
			q.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	if o.Limit != 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	for _, k := range slices.Sorted(maps.Keys(o.Metadata)) {
		q.Add("metadata", k+"="+o.Metadata[k])
	}
	return q
}

// Delete makes comfyd forget a job, with its outputs and the inputs that no other job uses. An open job is canceled
// first: false means that it has not ended yet, and that the same call goes on. An id that nobody knows, such as one that
// is deleted already, is an *[Error] with HTTPStatus 404; where a call had to be repeated, that counts as deleted.
func (c *Client) Delete(ctx context.Context, id string) (deleted bool, err error) {
	if strings.TrimSpace(id) == "" {
		return false, errors.New("a job is deleted by its id; none was given")
	}
	tries := 0
	var st Status
	err = c.retry(ctx, c.within(), func(ctx context.Context) error {
		tries++
		st = Status{}
		_, err := c.once(ctx, request{method: http.MethodDelete, path: job("jobs", id)}, &st)
		return err
	})
	var refused *Error
	if tries > 1 && errors.As(err, &refused) && refused.HTTPStatus == http.StatusNotFound {
		return true, nil
	}
	return err == nil && st.State == "", err
}
