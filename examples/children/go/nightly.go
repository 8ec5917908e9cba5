package main

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
)

// nightlyID is the schedule's. The job of a night is called nightly-picture-2026-11-30T03:00:00Z.
const nightlyID = "nightly-picture"

// nightly runs one of comfyd's jobs every night at three. The schedule starts it directly: no worker of ours is needed,
// and the job's ID is the call_id. To do something with the picture, let it start a workflow of yours that has the job as
// a child, such as Single.
func nightly(ctx context.Context, c client.Client, req comfy.Request) error {
	if err := req.Check(); err != nil {
		return fmt.Errorf("the job: %w", err)
	}
	_, err := c.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID:      nightlyID,
		Spec:    client.ScheduleSpec{Calendars: []client.ScheduleCalendarSpec{{Hour: []client.ScheduleRange{{Start: 3}}}}, TimeZoneName: "Europe/Berlin"},
		Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP, // one that takes longer than a day
		Action:  &client.ScheduleWorkflowAction{ID: nightlyID, Workflow: comfy.WorkflowName, TaskQueue: comfy.TaskQueue, Args: []any{req}},
	})
	if err != nil && !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return fmt.Errorf("making the schedule %s: %w", nightlyID, err)
	}
	return nil
}
