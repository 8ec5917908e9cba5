package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/gofiber/fiber/v2"
	"go.temporal.io/api/serviceerror"

	"github.com/comfyd/comfyd/comfy"
)

const cancelTimeout = 5 * time.Second

// ownJob is the job that a path names, as Temporal knows it now.
func (s *Server) ownJob(c *fiber.Ctx) (*job, error) {
	id, err := pathValue(c, "id")
	if err != nil {
		return nil, err
	}
	about(c).callID = id
	return s.latestJob(id, about(c).tenant)
}

// cancel is POST /cancel/{id}. It asks once or many times, to the same end: 202 while the job is open, 200 with what
// became of it when it has ended, which may be before the request came or instead of being canceled.
func (s *Server) cancel(c *fiber.Ctx) error {
	j, err := s.ownJob(c)
	if err != nil {
		return err
	}
	if !j.ended() {
		if j, err = s.requestCancel(j); err != nil {
			return err
		}
	}
	switch j.status.State {
	case comfy.Completed:
		return c.Status(http.StatusOK).JSON(completed{
			completedHead: completedHead{ID: j.id, Status: comfy.Completed}, StatusURL: s.url(c, "/status/"+url.PathEscape(j.id)),
		})
	case comfy.Failed:
		return c.Status(http.StatusOK).JSON(failedBody(&j.status))
	}
	return s.sendCanceling(c, j)
}

// sendCanceling answers for a job that has not ended yet.
func (s *Server) sendCanceling(c *fiber.Ctx, j *job) error {
	canceling := s.runningBody(s.base(c), j.tenant, &j.status)
	canceling.Phase = comfy.PhaseCanceling
	return c.Status(http.StatusAccepted).JSON(canceling)
}

// completed tells where the result is, rather than sending it to somebody who did not want it any more.
type completed struct {
	completedHead
	StatusURL string `json:"status_url"`
}

// requestCancel returns the job as it stands after the request: as it was, or ended, when its end was faster. Where its ID
// has been used again meanwhile, by a retry policy or a reset, the run that is there now is asked.
func (s *Server) requestCancel(j *job) (*job, error) {
	ctx, cancel := context.WithTimeout(s.life, cancelTimeout)
	defer cancel()
	for {
		err := s.temporal.CancelWorkflow(ctx, j.id, j.runID)
		s.outdate(j.id)
		var ended *serviceerror.NotFound // Temporal's answer for a closed run as well
		if err == nil {
			return j, nil
		}
		if !errors.As(err, &ended) {
			return nil, temporalError(err)
		}
		next, err := s.latestJob(j.id, j.tenant)
		if err != nil || next.ended() || next.runID == j.runID {
			return next, err
		}
		j = next
	}
}
