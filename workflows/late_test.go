package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/workflows"
)

// story is a history that is written by hand: Temporal's test environment calls an activity canceled as soon as it is asked
// to stop, and so knows none that ends well all the same.
type story struct {
	t      *testing.T
	events []*history.HistoryEvent
}

func (s *story) add(kind enums.EventType, attributes func(*history.HistoryEvent)) (id int64) {
	e := &history.HistoryEvent{EventId: int64(len(s.events) + 1), EventType: kind}
	if attributes != nil {
		attributes(e)
	}
	s.events = append(s.events, e)
	return e.EventId
}

// task is a step of the workflow; what it has decided follows.
func (s *story) task() (completed int64) {
	scheduled := s.add(enums.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED, nil)
	started := s.add(enums.EVENT_TYPE_WORKFLOW_TASK_STARTED, nil)
	return s.add(enums.EVENT_TYPE_WORKFLOW_TASK_COMPLETED, func(e *history.HistoryEvent) {
		e.Attributes = &history.HistoryEvent_WorkflowTaskCompletedEventAttributes{WorkflowTaskCompletedEventAttributes: &history.WorkflowTaskCompletedEventAttributes{
			ScheduledEventId: scheduled, StartedEventId: started,
		}}
	})
}

func (s *story) begins(name, id string, decided int64) (scheduled int64) {
	scheduled = s.add(enums.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, func(e *history.HistoryEvent) {
		e.Attributes = &history.HistoryEvent_ActivityTaskScheduledEventAttributes{ActivityTaskScheduledEventAttributes: &history.ActivityTaskScheduledEventAttributes{
			ActivityId: id, ActivityType: &common.ActivityType{Name: name}, WorkflowTaskCompletedEventId: decided,
		}}
	})
	s.add(enums.EVENT_TYPE_ACTIVITY_TASK_STARTED, func(e *history.HistoryEvent) {
		e.Attributes = &history.HistoryEvent_ActivityTaskStartedEventAttributes{ActivityTaskStartedEventAttributes: &history.ActivityTaskStartedEventAttributes{ScheduledEventId: scheduled}}
	})
	return scheduled
}

func (s *story) ends(scheduled int64, result any) {
	p, err := converter.GetDefaultDataConverter().ToPayloads(result)
	require.NoError(s.t, err)
	s.add(enums.EVENT_TYPE_ACTIVITY_TASK_COMPLETED, func(e *history.HistoryEvent) {
		e.Attributes = &history.HistoryEvent_ActivityTaskCompletedEventAttributes{ActivityTaskCompletedEventAttributes: &history.ActivityTaskCompletedEventAttributes{
			ScheduledEventId: scheduled, Result: p,
		}}
	})
}

func (s *story) upsert(name string) {
	s.add(enums.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES, func(e *history.HistoryEvent) {
		e.Attributes = &history.HistoryEvent_UpsertWorkflowSearchAttributesEventAttributes{UpsertWorkflowSearchAttributesEventAttributes: &history.UpsertWorkflowSearchAttributesEventAttributes{
			SearchAttributes: &common.SearchAttributes{IndexedFields: map[string]*common.Payload{name: nil}},
		}}
	})
}

// TestCanceledBeforeTheEndIsKnown: a job whose cancel has come before the prompt's end, of which it learns at the same time,
// is canceled, as whoever asked for it was told.
func TestCanceledBeforeTheEndIsKnown(t *testing.T) {
	for end, fits := range map[enums.EventType]bool{
		enums.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:  true,
		enums.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: false,
	} {
		t.Run(end.String(), func(t *testing.T) {
			s := &story{t: t}
			in, err := converter.GetDefaultDataConverter().ToPayloads(request)
			require.NoError(t, err)
			s.add(enums.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED, func(e *history.HistoryEvent) {
				e.Attributes = &history.HistoryEvent_WorkflowExecutionStartedEventAttributes{WorkflowExecutionStartedEventAttributes: &history.WorkflowExecutionStartedEventAttributes{
					WorkflowType: &common.WorkflowType{Name: comfy.WorkflowName}, TaskQueue: &taskqueue.TaskQueue{Name: comfy.TaskQueue}, Input: in,
					OriginalExecutionRunId: "run", FirstExecutionRunId: "run",
				}}
			})
			warm := s.begins(comfy.ActivityWarmUp, "5", s.task())
			s.ends(warm, ready)
			decided := s.task()
			s.upsert(comfy.AttrBackend)
			prompt := s.begins(comfy.ActivityPrompt, "12", decided)
			s.add(enums.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED, nil)
			s.ends(prompt, activities.Prompted{
				Outcome:   backend.Outcome{StartedAt: time.Unix(1, 0), EndedAt: time.Unix(2, 0)},
				Collected: &activities.Collected{Images: []comfy.Output{{Filename: "a.png", NodeID: "1", SHA256: "abc"}}},
			})
			s.task()
			if fits {
				s.upsert(comfy.AttrErrorCode)
			}
			s.add(end, nil)
			r := worker.NewWorkflowReplayer()
			workflows.Register(r)
			err = r.ReplayWorkflowHistory(nil, &history.History{Events: s.events})
			require.Equal(t, fits, err == nil, "%v", err)
		})
	}
}
