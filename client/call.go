package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// request is one call of the API.
type request struct {
	method, path string
	header       http.Header
	// body opens the body anew for each try and says its length, -1 where unknown; nil for none.
	body func() (io.Reader, int64, error)
}

// call sends r, repeats it while that may help, and decodes the answer into out; one without content leaves out as it is.
func (c *Client) call(ctx context.Context, limit time.Duration, r request, out any) (header http.Header, err error) {
	err = c.retry(ctx, limit, func(ctx context.Context) error {
		header, err = c.once(ctx, r, out)
		return err
	})
	return header, err
}

// once sends r a single time.
func (c *Client) once(ctx context.Context, r request, out any) (http.Header, error) {
	ctx, watch := watchSilence(ctx, c.silence)
	defer watch.stop()
	resp, err := c.send(ctx, watch, r, c.base.String()+r.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusNoContent {
		return resp.Header, nil
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "application/json" {
		return nil, fmt.Errorf("what answers at %s is not comfyd: it sent %q in place of JSON; is the address right?", c.base.Redacted(), kind)
	}
	if err := json.NewDecoder(watch.reader(resp.Body)).Decode(out); err != nil {
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		if errors.As(err, &syntax) || errors.As(err, &kind) {
			return nil, fmt.Errorf("cannot read the answer of comfyd at %s: %w", c.base.Redacted(), err)
		}
		return nil, c.unreachable(err)
	}
	// Read to its end, the connection serves the next call.
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	return resp.Header, nil
}

// send sends r to address and returns a 2xx answer, or an *Error or *UnreachableError.
func (c *Client) send(ctx context.Context, watch *silence, r request, address string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, address, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "comfyd-client")
	if c.key != "" && c.own(req.URL) {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	if r.body != nil {
		body, size, err := r.body()
		if err != nil {
			return nil, err
		}
		req.Body, req.ContentLength = io.NopCloser(watch.reader(body)), size
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer func() { _ = resp.Body.Close() }()
		return nil, refusal(resp)
	}
	return resp, nil
}

// own says whether u is the API itself: the key is for nobody else.
func (c *Client) own(u *url.URL) bool { return u.Scheme == c.base.Scheme && u.Host == c.base.Host }

// unreachable drops the method and the address, which url.Error repeats with each failure.
func (c *Client) unreachable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &UnreachableError{URL: c.base.Redacted(), Err: err}
}

// job is the path of a call about one job.
func job(call, id string) string { return "/" + call + "/" + url.PathEscape(strings.TrimSpace(id)) }

var errSilent = errors.New("the connection fell silent")

// silence ends a request whose connection carries nothing for a while: a server may be gone without a word.
type silence struct {
	timer  *time.Timer
	after  time.Duration
	cancel context.CancelCauseFunc
}

func watchSilence(ctx context.Context, after time.Duration) (context.Context, *silence) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &silence{timer: time.AfterFunc(after, func() { cancel(errSilent) }), after: after, cancel: cancel}
}

func (s *silence) stop() {
	s.timer.Stop()
	s.cancel(nil)
}

// reader passes r on and notes that it moves.
func (s *silence) reader(r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		s.timer.Reset(s.after)
		return r.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
