package comfyhttp

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/comfyd/comfyd/internal/catalog"
)

// maxAnswer bounds an answer that is read whole. A history repeats the workflow, a queue all of them.
const maxAnswer = 256 << 20

func newTransport() *http.Transport {
	http1 := new(http.Protocols)
	http1.SetHTTP1(true) // a WebSocket needs it, and ComfyUI speaks nothing else
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		Protocols:           http1,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     30 * time.Second, // below the 75 s after which ComfyUI's aiohttp closes an idle connection
	}
}

func nobody() logrus.FieldLogger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

// callError is an exchange that gave no usable answer.
type callError struct {
	status  int  // HTTP's, 0 without an answer
	unsent  bool // surely nothing of the request was read
	refused bool // nobody listens, as opposed to somebody who does not answer
	why     string
	err     error
}

func (e *callError) Error() string { return e.why }
func (e *callError) Unwrap() error { return e.err }

// request sends one request and returns the answer whatever its status, its body unread.
func (s *server) request(ctx context.Context, method, path string, query url.Values, body io.Reader, size int64, kind string) (*http.Response, error) {
	u := s.base.JoinPath(path)
	u.RawQuery = query.Encode()
	var sent atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	req, err := http.NewRequestWithContext(traced, method, u.String(), body)
	if err != nil {
		return nil, &callError{unsent: true, why: "the request could not be made", err: err}
	}
	if body != nil {
		req.ContentLength = size
		req.Header.Set("Content-Type", kind)
	}
	if s.auth != "" {
		req.Header.Set("Authorization", s.auth)
	}
	if path == "/view" {
		req.Header.Set("Accept-Encoding", "identity") // keeps Content-Length, by which a cut file is found
	}
	res, err := s.http.Do(req)
	if err != nil {
		return nil, explain(err, !sent.Load())
	}
	return res, nil
}

// call sends one request and returns the body of a 200. Any other answer is a *callError. The limit is for the answer
// to begin.
func (s *server) call(ctx context.Context, limit time.Duration, method, path string, body []byte) ([]byte, error) {
	data, _, err := s.exchange(ctx, limit, method, path, body)
	return data, err
}

// exchange is call that also returns the body of other answers.
func (s *server) exchange(ctx context.Context, limit time.Duration, method, path string, body []byte) ([]byte, int, error) {
	ctx, cancel := context.WithTimeout(ctx, limit+s.t.body)
	defer cancel()
	idle := newIdleTimer(limit, cancel)
	defer idle.stop()
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	res, err := s.request(ctx, method, path, nil, r, int64(len(body)), "application/json")
	if err != nil {
		return nil, 0, idle.explain(err)
	}
	defer res.Body.Close()
	idle.after = s.t.idle
	data, err := io.ReadAll(touching{io.LimitReader(res.Body, maxAnswer+1), idle})
	switch {
	case err != nil:
		return nil, res.StatusCode, idle.explain(explain(err, false))
	case len(data) > maxAnswer:
		return nil, res.StatusCode, &callError{why: fmt.Sprintf("the answer to %s is larger than %d MiB", path, maxAnswer>>20)}
	case res.StatusCode != http.StatusOK:
		return data, res.StatusCode, statusError(res)
	}
	return data, res.StatusCode, nil
}

// get reads a JSON answer into v. ComfyUI writes bare NaN and Infinity, which are no JSON.
func (s *server) get(ctx context.Context, limit time.Duration, path string, v any) error {
	data, err := s.call(ctx, limit, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(catalog.Sanitize(data), v); err != nil {
		return &callError{status: http.StatusOK, why: "the answer to " + path + " is not what a ComfyUI sends; is the address right?", err: err}
	}
	return nil
}

// post sends a JSON body and wants a 200.
func (s *server) post(ctx context.Context, path string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.call(ctx, s.t.call, http.MethodPost, path, body)
	return err
}

func statusError(res *http.Response) *callError {
	e := &callError{status: res.StatusCode}
	switch {
	case res.StatusCode == http.StatusUnauthorized:
		e.why = "it wants a user and a password, or other ones (401)"
	case res.StatusCode == http.StatusForbidden:
		e.why = "it refuses us (403): ComfyUI's check of the Host header, or a proxy's rule"
	case res.StatusCode >= 300 && res.StatusCode < 400:
		e.why = fmt.Sprintf("it redirects (%d); name the address that it redirects to", res.StatusCode)
	case res.StatusCode == http.StatusBadGateway || res.StatusCode == http.StatusServiceUnavailable:
		e.refused = true // a proxy whose ComfyUI is down
		e.why = fmt.Sprintf("the proxy in front of it does not reach it (%d)", res.StatusCode)
	default:
		e.why = fmt.Sprintf("it answered %d", res.StatusCode)
	}
	return e
}

// explain words a failed exchange for a person. The error itself stays as the cause; it holds no credentials, because
// those travel in a header.
func explain(err error, unsent bool) *callError {
	e := &callError{unsent: unsent, err: err, why: "the connection broke"}
	var dns *net.DNSError
	var timeout net.Error
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.Canceled):
		e.why = "the call was given up"
	case errors.As(err, &dns):
		e.refused, e.why = true, "its name cannot be resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.refused, e.why = true, "nothing listens there (connection refused)"
	case errors.As(err, &cert):
		e.why = "its TLS certificate is not trusted"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		e.why = "no answer in time"
	case unsent:
		e.refused, e.why = true, "it cannot be reached"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		e.refused, e.why = true, "the connection broke"
	}
	return e
}

// idleTimer ends a transfer in which nothing moves.
type idleTimer struct {
	t     *time.Timer
	after time.Duration
	fired atomic.Bool
}

func newIdleTimer(after time.Duration, cancel func()) *idleTimer {
	i := &idleTimer{after: after}
	i.t = time.AfterFunc(after, func() {
		i.fired.Store(true)
		cancel()
	})
	return i
}

func (i *idleTimer) touch() { i.t.Reset(i.after) }
func (i *idleTimer) stop()  { i.t.Stop() }

// explain corrects the error of a transfer that the timer has ended.
func (i *idleTimer) explain(err error) error {
	var ce *callError
	if i.fired.Load() && errors.As(err, &ce) {
		return &callError{unsent: ce.unsent, why: "no answer in time", err: err}
	}
	return err
}

// touching keeps the timer from firing while bytes move.
type touching struct {
	r    io.Reader
	idle *idleTimer
}

func (t touching) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.idle.touch()
	return n, err
}
