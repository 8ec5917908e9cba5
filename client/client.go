// Package client speaks comfyd's HTTP API: it submits ComfyUI workflows, waits for them and fetches what they made.
//
// Every call repeats itself while the failure is one that may pass (no connection, 408, 429, 5xx), with growing pauses
// or those that the server asks for in Retry-After. A submission always carries an idempotency key, so that repeating it
// never starts a second job.
package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Client calls one comfyd. It is safe for concurrent use.
type Client struct {
	base     *url.URL
	baseErr  error
	key      string
	http     *http.Client
	retryFor time.Duration
	silence  time.Duration
	quiet    time.Duration
	notice   func(err error, next time.Duration)
}

// Option changes how a [Client] works.
type Option func(*Client)

// WithHTTPClient sends every request through h, in place of [http.DefaultClient].
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithRetryFor says for how long a call repeats itself; 10 seconds unless told, 0 for a single try. [Client.Wait] is
// not bound by it.
func WithRetryFor(d time.Duration) Option { return func(c *Client) { c.retryFor = d } }

// WithSilence says for how long a connection may carry no byte in either direction before it counts as broken; a minute
// unless told. It must be longer than the longest [StatusOptions.Wait].
func WithSilence(d time.Duration) Option { return func(c *Client) { c.silence = d } }

// WithQuiet says for how long [Client.Follow] may hear of no event before it asks for the status; 3 seconds unless told.
func WithQuiet(d time.Duration) Option { return func(c *Client) { c.quiet = d } }

// WithNotice is told of each failed try that will be repeated, and after what pause. It may be called from any
// goroutine that uses the client.
func WithNotice(f func(err error, next time.Duration)) Option {
	return func(c *Client) { c.notice = f }
}

// New returns a client of the comfyd at baseURL ("http://127.0.0.1:8080"; a path before the API's own is kept), which
// signs its requests with key; an empty key sends none. A baseURL that cannot be used is reported by the first call.
func New(baseURL, key string, opts ...Option) *Client {
	c := &Client{key: key, http: http.DefaultClient, retryFor: 10 * time.Second, silence: time.Minute, quiet: followQuiet}
	var err error
	if c.base, err = url.Parse(strings.TrimRight(baseURL, "/")); err != nil || c.base.Scheme != "http" && c.base.Scheme != "https" || c.base.Host == "" {
		c.baseErr = fmt.Errorf("%q is not an http or https address such as http://127.0.0.1:8080", baseURL)
	}
	for _, o := range opts {
		o(c)
	}
	return c
}

// Limits of retry beside a client's own.
const (
	endless   time.Duration = 0
	singleTry time.Duration = 1
)

func (c *Client) within() time.Duration { return max(c.retryFor, singleTry) }

// retry calls op until it succeeds, fails for good, or limit has passed. When ctx ends first, the error holds its cause
// and the last failure.
func (c *Client) retry(ctx context.Context, limit time.Duration, op func(context.Context) error) error {
	if c.baseErr != nil {
		return c.baseErr
	}
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 100*time.Millisecond, 5*time.Second
	var last error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := op(ctx)
		if err != nil && (ctx.Err() != nil || !passing(err)) {
			return struct{}{}, backoff.Permanent(err)
		}
		last = err
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(limit), backoff.WithNotify(c.notice))
	if err != nil && ctx.Err() != nil {
		if last == nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w (before that: %w)", context.Cause(ctx), last)
	}
	return err
}
