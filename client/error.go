package client

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/comfyd/comfyd/comfy"
)

// Error is the server's refusal of one request.
type Error struct {
	HTTPStatus int
	// Code is the API's name for the reason; empty where something before the API answered (a proxy).
	Code       string
	Message    string           // for a person
	NodeErrors comfy.NodeErrors // what is wrong with the workflow, node by node
	RetryAfter time.Duration    // how long the server asks to wait; 0 where it does not say
	RequestID  string           // finds the request in the server's log
}

func (e *Error) Error() string {
	// A refusal explains itself; a fault is looked up in the server's log.
	if e.RequestID == "" || e.HTTPStatus < 500 {
		return fmt.Sprintf("%s (HTTP %d)", e.Message, e.HTTPStatus)
	}
	return fmt.Sprintf("%s (HTTP %d, request %s)", e.Message, e.HTTPStatus, e.RequestID)
}

// As lets package backoff see RetryAfter.
func (e *Error) As(target any) bool {
	t, ok := target.(**backoff.RetryAfterError)
	if !ok || e.RetryAfter <= 0 {
		return false
	}
	*t = &backoff.RetryAfterError{Duration: e.RetryAfter}
	return true
}

// Busy says that the server answered, but could not take the request now: 408, 429 or 5xx, other than a lost output.
func (e *Error) Busy() bool {
	if e.Code == "output_lost" { // it does not come back
		return false
	}
	return e.HTTPStatus == http.StatusRequestTimeout || e.HTTPStatus == http.StatusTooManyRequests || e.HTTPStatus >= 500
}

// UnreachableError says that no whole answer came.
type UnreachableError struct {
	URL string // the server's
	Err error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no answer from comfyd at %s: %v; is it running, and is the address right?", e.URL, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// passing says whether the same request may succeed later.
func passing(err error) bool {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.Busy()
	}
	var unreachable *UnreachableError
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &unreachable) && !errors.As(err, &certificate) && !errors.Is(err, http.ErrSchemeMismatch)
}

// maxErrorBody bounds what is read of an error's answer; node errors of a large graph fit.
const maxErrorBody = 4 << 20

// refusal reads the error that an answer carries.
func refusal(resp *http.Response) error {
	e := &Error{
		HTTPStatus: resp.StatusCode,
		RequestID:  resp.Header.Get("X-Request-Id"),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After")),
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var said struct {
		Error      string           `json:"error"`
		Code       string           `json:"code"`
		NodeErrors comfy.NodeErrors `json:"node_errors"`
	}
	if err := json.Unmarshal(body, &said); err == nil && said.Error != "" {
		e.Message, e.Code, e.NodeErrors = said.Error, said.Code, said.NodeErrors
		return e
	}
	e.Message = "the server answered " + resp.Status
	if text := strings.TrimSpace(string(body[:min(len(body), 200)])); text != "" && !strings.HasPrefix(text, "<") {
		e.Message += ": " + text
	}
	return e
}

// retryAfter reads the header's two forms, seconds and a date (RFC 9110, section 10.2.3).
func retryAfter(h string) time.Duration {
	if s, err := strconv.Atoi(h); err == nil && s > 0 {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(h); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}
