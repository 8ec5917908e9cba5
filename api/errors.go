package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofiber/fiber/v2"
	"go.temporal.io/api/serviceerror"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/comfyd/comfyd/comfy"
)

// Code says why a request failed. The list is closed; why a job failed is a [comfy.Code].
type Code string

// Codes of failed requests, each with the HTTP status that [Code.Status] gives it.
const (
	CodeInvalidRequest      Code = "invalid_request"       // 400: the body is not what this call takes; the text names the field
	CodeInvalidWorkflow     Code = "invalid_workflow"      // 400: ComfyUI would refuse this graph, or die of it; see node_errors
	CodeWorkflowFormatUI    Code = "workflow_format_ui"    // 400: the editor's own format, which cannot be converted safely; see node_errors
	CodeUnauthorized        Code = "unauthorized"          // 401: no key, or a wrong one
	CodeInvalidLink         Code = "invalid_link"          // 403: the link's signature is wrong
	CodeLinkExpired         Code = "link_expired"          // 403: ask the status for a new link
	CodeNotFound            Code = "not_found"             // 404: no such thing, or somebody else's
	CodeMethodNotAllowed    Code = "method_not_allowed"    // 405: see the header Allow
	CodeRequestTimeout      Code = "request_timeout"       // 408: the request came too slowly
	CodePayloadTooLarge     Code = "payload_too_large"     // 413
	CodeUnsupportedMedia    Code = "unsupported_media"     // 415
	CodeRange               Code = "range_not_satisfiable" // 416
	CodeIdempotencyKeyReuse Code = "idempotency_key_reuse" // 422: the key belongs to a different request
	CodeInvalidInput        Code = "invalid_input"         // 422: a file that came with the job cannot be used
	CodeLimitExceeded       Code = "limit_exceeded"        // 422: above a limit that the text names
	CodeNotSupported        Code = "not_supported"         // 422: a field that this version does not act on
	CodeInvalidWebhook      Code = "invalid_webhook"       // 422: webhook_url may not be called
	CodeHeadersTooLarge     Code = "headers_too_large"     // 431
	CodeRateLimited         Code = "rate_limited"          // 429: see the header Retry-After
	CodeInternal            Code = "internal"              // 500: a fault of comfyd
	CodeOutputLost          Code = "output_lost"           // 500: the store no longer has an output of this job
	CodeStorage             Code = "storage"               // 503: the store does not answer, or is full
	CodeUnavailable         Code = "unavailable"           // 503: Temporal does not answer, or the server is busy or stopping
)

// Status is the HTTP status of a response with this code. A code outside the list counts as internal.
func (c Code) Status() int {
	switch c {
	case CodeInvalidRequest, CodeInvalidWorkflow, CodeWorkflowFormatUI:
		return http.StatusBadRequest
	case CodeUnauthorized:
		return http.StatusUnauthorized
	case CodeInvalidLink, CodeLinkExpired:
		return http.StatusForbidden
	case CodeNotFound:
		return http.StatusNotFound
	case CodeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case CodeRequestTimeout:
		return http.StatusRequestTimeout
	case CodePayloadTooLarge:
		return http.StatusRequestEntityTooLarge
	case CodeUnsupportedMedia:
		return http.StatusUnsupportedMediaType
	case CodeRange:
		return http.StatusRequestedRangeNotSatisfiable
	case CodeIdempotencyKeyReuse, CodeInvalidInput, CodeLimitExceeded, CodeNotSupported, CodeInvalidWebhook:
		return http.StatusUnprocessableEntity
	case CodeHeadersTooLarge:
		return http.StatusRequestHeaderFieldsTooLarge
	case CodeRateLimited:
		return http.StatusTooManyRequests
	case CodeStorage, CodeUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// retrySeconds is what 429 and 503 tell in Retry-After.
const retrySeconds = 2

// Error is a failed request as the client sees it, with the cause that only the log sees.
type Error struct {
	Message    string           `json:"error"`
	Code       Code             `json:"code"`
	NodeErrors comfy.NodeErrors `json:"node_errors,omitempty"`
	cause      error
}

// Error describes the failure with its cause, for the log.
func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

func (e *Error) Unwrap() error { return e.cause }

func (e *Error) because(cause error) *Error {
	e.cause = cause
	return e
}

func failf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// notFound is the PRD's answer to an ID that is unknown, and to one of another tenant.
func notFound() *Error { return failf(CodeNotFound, "Call ID not found or invalid.") }

func tooLarge(limit int64) *Error {
	return failf(CodePayloadTooLarge, "The request body is larger than the %d bytes that this server takes.", limit)
}

// handleError turns whatever a handler or the HTTP library failed with into the one shape of errors. Texts of others
// are replaced: they may hold bytes of the request.
func (s *Server) handleError(c *fiber.Ctx, err error) error {
	e := asError(err)
	if e.Code.Status() >= http.StatusInternalServerError {
		requestLog(s.log, c).WithError(e).Warn("request failed")
	}
	switch e.Code.Status() {
	case http.StatusUnauthorized:
		if c.GetRespHeader(fiber.HeaderWWWAuthenticate) == "" { // the codec server has another
			c.Set(fiber.HeaderWWWAuthenticate, `Bearer realm="comfyd"`)
		}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		c.Set(fiber.HeaderRetryAfter, strconv.Itoa(retrySeconds))
	case http.StatusRequestTimeout:
		c.Context().SetConnectionClose()
	}
	secureHeaders(c)
	return c.Status(e.Code.Status()).JSON(e)
}

func asError(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var lib *fiber.Error
	if !errors.As(err, &lib) {
		return failf(CodeInternal, "The server met a fault of its own. Its log has the details under this request's X-Request-Id.").because(err)
	}
	switch lib.Code {
	case http.StatusNotFound:
		return failf(CodeNotFound, "There is nothing at this address.")
	case http.StatusMethodNotAllowed:
		return failf(CodeMethodNotAllowed, "This address does not take that method; the header Allow names those that it takes.")
	case http.StatusRequestTimeout:
		return failf(CodeRequestTimeout, "The request did not arrive in time.")
	case http.StatusRequestEntityTooLarge:
		return failf(CodePayloadTooLarge, "The request is too large.")
	case http.StatusRequestHeaderFieldsTooLarge:
		return failf(CodeHeadersTooLarge, "The request's headers are larger than the %d bytes that this server takes.", headerLimit)
	default:
		return failf(CodeInvalidRequest, "The request is not valid HTTP.").because(err)
	}
}

// graphError words what [comfy.ParseGraph] has against a graph.
func graphError(err error) error {
	var graph *comfy.GraphError
	if !errors.As(err, &graph) {
		return failf(CodeInvalidWorkflow, "The workflow cannot be read.").because(err)
	}
	code := CodeInvalidWorkflow
	if graph.UI {
		code = CodeWorkflowFormatUI
	}
	return &Error{Code: code, Message: graph.Message, NodeErrors: graph.NodeErrors}
}

// refusal words why no backend would run a graph.
func refusal(f *comfy.Failure) error {
	code := CodeInvalidWorkflow
	switch f.Code {
	case comfy.BackendUnavailable:
		code = CodeUnavailable
	case comfy.Internal:
		code = CodeInternal
	}
	return &Error{Code: code, Message: f.Message, NodeErrors: f.NodeErrors}
}

// temporalError words a failure of Temporal itself.
func temporalError(err error) *Error {
	var (
		missing   *serviceerror.NotFound
		exhausted *serviceerror.ResourceExhausted
		invalid   *serviceerror.InvalidArgument
	)
	switch {
	case errors.As(err, &missing):
		return notFound().because(err)
	case errors.As(err, &exhausted):
		return failf(CodeRateLimited, "Temporal takes no more requests at the moment (its limit for this namespace). Nothing was accepted; try again.").because(err)
	// The rest of this status is gRPC's own: a message above its limit, for which the SDK has no exported type.
	case status.Code(err) == codes.ResourceExhausted:
		return failf(CodePayloadTooLarge, "The request is larger than Temporal takes.").because(err)
	// Temporal has no type for a payload above its limit either; "Blob data size exceeds limit." was seen with 1.32.1.
	case errors.As(err, &invalid) && strings.Contains(invalid.Message, "exceeds"):
		return failf(CodePayloadTooLarge, "The request is larger than Temporal takes.").because(err)
	case errors.As(err, &invalid):
		return failf(CodeInternal, "Temporal refused the request. The server's log has the reason under this request's X-Request-Id.").because(err)
	default:
		return failf(CodeUnavailable, "Temporal, which keeps the jobs, does not answer. Try again.").because(err)
	}
}

// storeError words a failure of the store.
func storeError(err error) *Error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return failf(CodeStorage, "The store did not answer in time. Try again.").because(err)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return failf(CodeStorage, "The store is full. Nothing was accepted; try again when there is room.").because(err)
	}
	return failf(CodeStorage, "The store cannot be used at the moment. Try again.").because(err)
}
