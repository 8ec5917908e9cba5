package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gofiber/fiber/v2"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/removal"
	"github.com/comfyd/comfyd/internal/visibility"
)

const (
	// deleteWait is how long a DELETE holds for a job to end that it has canceled. A node that cannot be interrupted is
	// given up after 15 s.
	deleteWait = 20 * time.Second
	// deleteTimeout bounds the rest.
	deleteTimeout = time.Minute
	// noteTimeout is what a read waits for the store's word whether its job was deleted: most jobs need no other of it.
	noteTimeout = time.Second
)

// remove is DELETE /jobs/{id}. An open job is canceled first: 202 where it takes longer to end than a request should,
// and the same request again goes on. 204 when the job is forgotten, and 404 from then on.
func (s *Server) remove(c *fiber.Ctx) error {
	j, err := s.ownJob(c)
	if err != nil {
		return err
	}
	if !j.ended() {
		if j, err = s.cancelAndWait(j); err != nil {
			return err
		}
	}
	if !j.ended() {
		return s.sendCanceling(c, j)
	}
	if err := s.forgetJob(c, j); err != nil {
		return err
	}
	return c.SendStatus(http.StatusNoContent)
}

func (s *Server) cancelAndWait(j *job) (*job, error) {
	now, err := s.requestCancel(j)
	if err != nil || now.ended() {
		return now, err
	}
	s.watches.await(now, s.deleteWait)
	return s.freshJob(j.id, j.tenant)
}

// forgetJob removes a job that has ended, and everything of it that nobody else uses.
func (s *Server) forgetJob(c *fiber.Ctx, j *job) error {
	ctx, cancel := context.WithTimeout(s.life, deleteTimeout)
	defer cancel()
	request, err := s.givenTo(ctx, j)
	if err != nil {
		if asError(err).Code == CodeNotFound { // another replica was faster
			s.closed.forget(j)
		}
		return err
	}
	gone := removal.Job{ID: j.id, RunID: j.runID, Tenant: j.tenant, Started: j.status.CreatedAt, Webhook: request.WebhookURL != ""}
	if j.submitted { // what a child names is not its own: whoever uploaded it may name it again
		gone.Inputs = visibility.Keys(&request)
	}
	err = s.remover.Remove(ctx, gone)
	if err != nil && !errors.Is(err, removal.ErrUnfinished) {
		return storeError(err)
	}
	if err != nil {
		requestLog(s.log, c).WithError(err).Warn("a sweep has to finish the deletion of a job")
	}
	s.deleted.Add(j.runID, struct{}{})
	s.closed.forget(j)
	s.outdate(j.id)
	return nil
}

// isDeleted tells whether a run was deleted, here or by another replica, though Temporal may know it still. Where the
// store does not answer, it was not: its outputs cannot be had then either.
func (s *Server) isDeleted(ctx context.Context, id, runID string) bool {
	if s.deleted.Contains(runID) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience.note)
	defer cancel()
	deleted, err := s.remover.Deleted(ctx, id, runID)
	if err != nil {
		s.log.WithError(err).WithField("call_id", id).Debug("cannot tell whether the job was deleted")
	}
	if deleted {
		s.deleted.Add(runID, struct{}{})
	}
	return deleted
}

// explainLoss tells an output that went with its job from one that was lost.
func (s *Server) explainLoss(j *job, err error) error {
	if asError(err).Code == CodeOutputLost && !s.known(j) {
		return notFound().because(err)
	}
	return err
}

// givenTo is what a job was started with. A child's input may be anything: one that is none counts as empty.
func (s *Server) givenTo(ctx context.Context, j *job) (comfy.Request, error) {
	request, err := s.requestOf(ctx, j.id, j.runID)
	if err != nil && !j.submitted && asError(err).Code == CodeInternal {
		return comfy.Request{}, nil
	}
	return request, err
}

// requestOf reads from Temporal what a job was started with.
func (s *Server) requestOf(ctx context.Context, id, runID string) (request comfy.Request, err error) {
	history, err := s.temporal.WorkflowService().GetWorkflowExecutionHistory(ctx, &workflowservice.GetWorkflowExecutionHistoryRequest{
		Namespace: s.opts.Namespace, MaximumPageSize: 1,
		Execution: &commonpb.WorkflowExecution{WorkflowId: id, RunId: runID},
	})
	if err != nil {
		return request, temporalError(err)
	}
	events := history.GetHistory().GetEvents()
	if len(events) == 0 {
		return request, nil
	}
	input := events[0].GetWorkflowExecutionStartedEventAttributes().GetInput()
	if err := s.opts.Converter.FromPayloads(input, &request); err != nil {
		return request, failf(CodeInternal, "The job's input cannot be read.").because(err)
	}
	return request, nil
}
