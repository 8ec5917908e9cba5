package api

import (
	"context"
	"errors"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"go.temporal.io/api/serviceerror"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

// jobNamespace is the root of the version 5 UUIDs of jobs with an Idempotency-Key. Changing it forgets all keys.
var jobNamespace = uuid.MustParse("6f0c0a52-5c0e-4c5f-9d0b-0d7c5f3f2b61")

const maxKey = 255

func idempotencyKey(c *fiber.Ctx) (string, error) {
	values := c.Request().Header.PeekAll(headerIdempotencyKey)
	if len(values) == 0 {
		return "", nil
	}
	key := string(values[0])
	printable := !strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' })
	if len(values) > 1 || key == "" || len(key) > maxKey || !printable {
		return "", failf(CodeInvalidRequest, "The header Idempotency-Key must be one value of 1 to %d printable ASCII characters.", maxKey)
	}
	return key, nil
}

// replay looks for the job that an earlier request under the same key has started. It reports false where there is
// none, and fails where the earlier request was a different one.
func (s *Server) replay(ctx context.Context, id string, memo comfy.Submission) (bool, error) {
	described, err := s.temporal.DescribeWorkflowExecution(ctx, id, "")
	var missing *serviceerror.NotFound
	if errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, temporalError(err)
	}
	info := described.GetWorkflowExecutionInfo()
	if !visibility.IsOpen(info.GetStatus()) && s.isDeleted(ctx, id, info.GetExecution().GetRunId()) {
		return false, failf(CodeUnavailable, "The job under this Idempotency-Key was deleted, and Temporal is about to forget it, within a minute. Try again.")
	}
	first, ok, err := s.submissionOf(info)
	if err != nil {
		return false, err
	}
	if !ok || first.Tenant != memo.Tenant || first.Digest != memo.Digest {
		return false, failf(CodeIdempotencyKeyReuse, "This Idempotency-Key was used for a different request before. Use a new key for a new job.")
	}
	return true, nil
}

// exists tells whether Temporal has a job of this ID, open or ended.
func (s *Server) exists(ctx context.Context, id string) (bool, error) {
	_, err := s.temporal.DescribeWorkflowExecution(ctx, id, "")
	var missing *serviceerror.NotFound
	if errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, temporalError(err)
	}
	return true, nil
}

func inputNames(inputs []comfy.Input) []string {
	names := make([]string, 0, len(inputs))
	for _, in := range inputs {
		names = append(names, in.Name)
	}
	return names
}
