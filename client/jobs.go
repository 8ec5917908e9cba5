package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// Submit starts a job. It returns when the server has made the job durable. A refused workflow is an *[Error] with
// NodeErrors.
func (c *Client) Submit(ctx context.Context, r SubmitRequest) (Job, error) {
	var j Job
	replayed, err := c.submit(ctx, "/submit_workflow", r, r.IdempotencyKey, &j)
	if err != nil {
		return Job{}, err
	}
	if j.ID == "" {
		return Job{}, fmt.Errorf("what answers at %s is not comfyd: it accepted the job without an id", c.base.Redacted())
	}
	j.Replayed = replayed
	return j, nil
}

// SubmitBatch starts several jobs of one workflow, all or none. Each is a job like any other from then on, with the label
// [comfy.BatchLabel].
func (c *Client) SubmitBatch(ctx context.Context, r BatchRequest) (Batch, error) {
	var b Batch
	replayed, err := c.submit(ctx, "/batch", r, r.IdempotencyKey, &b)
	if err != nil {
		return Batch{}, err
	}
	if b.ID == "" || len(b.Jobs) == 0 {
		return Batch{}, fmt.Errorf("what answers at %s is not comfyd: it accepted the batch without an id, or without jobs", c.base.Redacted())
	}
	b.Replayed = replayed
	return b, nil
}

// submit posts what may be sent again under its key.
func (c *Client) submit(ctx context.Context, path string, r any, key string, out any) (replayed bool, err error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return false, fmt.Errorf("the workflow cannot be sent, it is not JSON: %w", err)
	}
	if key == "" {
		key = uuid.NewString()
	}
	header, err := c.call(ctx, c.within(), request{
		method: http.MethodPost, path: path,
		header: http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {key}},
		body:   func() (io.Reader, int64, error) { return bytes.NewReader(body.Bytes()), int64(body.Len()), nil },
	}, out)
	return header.Get("Idempotent-Replayed") == "true", err
}

// StatusOptions say how a status is asked for.
type StatusOptions struct {
	// Wait lets the server hold its answer until the job ends or this long has passed; the server has a limit of its
	// own. Whole seconds.
	Wait time.Duration
	// OutputURL asks for links in place of base64 data.
	OutputURL bool
}

// Status asks how a job is. An id that nobody knows is an *[Error] with HTTPStatus 404.
func (c *Client) Status(ctx context.Context, id string, o StatusOptions) (Status, error) {
	return c.status(ctx, c.within(), id, o)
}

func (c *Client) status(ctx context.Context, limit time.Duration, id string, o StatusOptions) (Status, error) {
	q := url.Values{}
	if s := int(o.Wait / time.Second); s > 0 {
		q.Set("wait", strconv.Itoa(s))
	}
	if o.OutputURL {
		q.Set("output", "url")
	}
	path := job("status", id)
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return c.ask(ctx, limit, request{method: http.MethodGet, path: path})
}

// Wait returns the status of a job when it has ended, with links in place of base64 data. It goes on through outages of
// the server until ctx ends. Where progress is not nil it is called with every answer, about once a second.
func (c *Client) Wait(ctx context.Context, id string, progress func(Status)) (Status, error) {
	hold := 30 * time.Second
	if progress != nil {
		hold = time.Second
	}
	for {
		// A server that does not know ?wait= answers at once; it is still asked no more than once a second.
		next := time.NewTimer(time.Second)
		st, err := c.status(ctx, endless, id, StatusOptions{Wait: hold, OutputURL: true})
		if err == nil && progress != nil {
			progress(st)
		}
		if err != nil || st.Ended() {
			next.Stop()
			return st, err
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			next.Stop()
			return st, context.Cause(ctx)
		}
	}
}

// Cancel asks that a job be stopped and returns its status right after: a job that runs may go on for a moment in phase
// "canceling", and one that has ended stays as it was.
func (c *Client) Cancel(ctx context.Context, id string) (Status, error) {
	return c.ask(ctx, c.within(), request{method: http.MethodPost, path: job("cancel", id)})
}

// ask makes a call that answers with a status.
func (c *Client) ask(ctx context.Context, limit time.Duration, r request) (Status, error) {
	var st Status
	if _, err := c.call(ctx, limit, r, &st); err != nil {
		return Status{}, err
	}
	if st.State == "" {
		return Status{}, errors.New("what answers at " + c.base.Redacted() + " is not comfyd: its answer has no status")
	}
	return st, nil
}
