package api

import (
	"context"
	"errors"

	"go.temporal.io/api/serviceerror"
)

// known asks Temporal whether a job that is told from memory is still there, and is still the latest of its ID, which a
// parent may use again: one question for all who ask at a time. While Temporal and the store do not answer, what is
// remembered counts.
func (s *Server) known(j *job) bool {
	there, _, _ := s.rechecks.Do(j.runID, func() (any, error) {
		ctx, cancel := context.WithTimeout(s.life, recheckTimeout)
		defer cancel()
		described, err := s.temporal.DescribeWorkflowExecution(ctx, j.id, "")
		var gone *serviceerror.NotFound
		other := err == nil && described.GetWorkflowExecutionInfo().GetExecution().GetRunId() != j.runID
		if errors.As(err, &gone) || other || s.isDeleted(ctx, j.id, j.runID) {
			s.closed.forget(j)
			return false, nil
		}
		s.closed.confirm(j, s.now())
		return true, nil
	})
	return there.(bool)
}

// outdate has the next read of an open job ask Temporal, and share none that is on its way.
func (s *Server) outdate(id string) {
	s.open.void(id, s.now())
	s.reads.Forget(id)
}

// freshJob reads a job anew, without what others have read a moment ago.
func (s *Server) freshJob(id, tenant string) (*job, error) {
	s.outdate(id)
	return s.job(id, tenant)
}

// latestJob is freshJob for what changes a job: an end that is remembered has to be that of the ID's latest run.
func (s *Server) latestJob(id, tenant string) (*job, error) {
	if j, _ := s.closed.get(id, s.now()); j != nil {
		s.known(j)
	}
	return s.freshJob(id, tenant)
}

// endedJob is freshJob for one whose end may be known, and which nobody asks for at this moment.
func (s *Server) endedJob(id, tenant string, end *outcome) (*job, error) {
	s.outdate(id)
	return s.shared(id, tenant, end)
}
