package api

import (
	"context"
	"errors"
	"fmt"
	"iter"

	commonpb "go.temporal.io/api/common/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/comfyd/comfyd/comfy"
)

// history is the latest run of a workflow, event by event.
func (s *Server) history(ctx context.Context, id string) iter.Seq2[*historypb.HistoryEvent, error] {
	return func(yield func(*historypb.HistoryEvent, error) bool) {
		var page []byte
		for {
			h, err := s.temporal.WorkflowService().GetWorkflowExecutionHistory(ctx, &workflowservice.GetWorkflowExecutionHistoryRequest{
				Namespace: s.opts.Namespace, Execution: &commonpb.WorkflowExecution{WorkflowId: id}, NextPageToken: page,
			})
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range h.GetHistory().GetEvents() {
				if !yield(e, nil) {
					return
				}
			}
			if page = h.GetNextPageToken(); len(page) == 0 {
				return
			}
		}
	}
}

// readDeliveries completes the log of a job's webhook from the history of its workflow: no worker has to be there for it.
func (s *Server) readDeliveries(ctx context.Context, j *job, log *webhookLog) error {
	log.State = webhookPending
	open := true
	for e, err := range s.history(ctx, comfy.WebhookWorkflowID(j.id)) {
		var missing *serviceerror.NotFound
		if errors.As(err, &missing) {
			log.State = webhookUnsent
			return nil
		}
		if err != nil {
			return temporalError(err)
		}
		switch {
		case e.GetWorkflowExecutionStartedEventAttributes() != nil:
			var in comfy.Webhook
			if err := s.opts.Converter.FromPayloads(e.GetWorkflowExecutionStartedEventAttributes().GetInput(), &in); err != nil {
				return unreadableLog(err)
			}
			if in.RunID != j.runID { // of a job that had the ID before
				log.State = webhookUnsent
				return nil
			}
			log.Attempts = append(log.Attempts, in.Earlier...)
		case e.GetActivityTaskCompletedEventAttributes() != nil:
			var d comfy.Delivery
			if err := s.opts.Converter.FromPayloads(e.GetActivityTaskCompletedEventAttributes().GetResult(), &d); err != nil {
				return unreadableLog(err)
			}
			log.Attempts = append(log.Attempts, d)
		case e.GetTimerStartedEventAttributes() != nil:
			at := e.GetEventTime().AsTime().Add(e.GetTimerStartedEventAttributes().GetStartToFireTimeout().AsDuration())
			log.NextAttemptAt = &at
		case e.GetTimerFiredEventAttributes() != nil:
			log.NextAttemptAt = nil
		case isEnd(e):
			open = false
		}
	}
	if open {
		return nil
	}
	log.NextAttemptAt, log.State = nil, string(comfy.DeliveryFailed)
	if n := len(log.Attempts); n > 0 {
		log.State = string(log.Attempts[n-1].Outcome)
	}
	return nil
}

func unreadableLog(cause error) error {
	return failf(CodeInternal, "The log of the webhook cannot be read.").because(fmt.Errorf("a payload: %w", cause))
}

// isEnd tells the last event of a workflow's history.
func isEnd(e *historypb.HistoryEvent) bool {
	return e.GetWorkflowExecutionCompletedEventAttributes() != nil || e.GetWorkflowExecutionFailedEventAttributes() != nil ||
		e.GetWorkflowExecutionCanceledEventAttributes() != nil || e.GetWorkflowExecutionTerminatedEventAttributes() != nil ||
		e.GetWorkflowExecutionTimedOutEventAttributes() != nil
}
