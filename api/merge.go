package api

import (
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// heartbeat is what the prompt activity reports (activities.Heartbeat); JSON is the contract between the two.
type heartbeat struct {
	Handle *backend.Handle `json:"handle"`
	Update *backend.Update `json:"update"`
	Live   string          `json:"live"`
}

// merge makes one status of an open job from two sources. The workflow's own word (nil where it gave none) knows phase
// and attempts; Describe knows how far the activity is, needs no worker, and has the last word on what it sees.
func (s *Server) merge(j *job, own *comfy.Status, described *workflowservice.DescribeWorkflowExecutionResponse) {
	status := &j.status
	if own != nil {
		status.Phase, status.Progress = own.Phase, own.Progress
		status.Attempts, status.Backend, status.QueuePosition = own.Attempts, own.Backend, own.QueuePosition
	}
	for _, activity := range described.GetPendingActivities() {
		switch activity.GetActivityType().GetName() {
		case comfy.ActivityWarmUp:
			status.Phase = comfy.PhaseWarming
		case comfy.ActivityPrompt:
			s.mergePrompt(j, activity)
		case comfy.ActivityCollect:
			status.Phase = comfy.PhaseCollecting
		}
	}
	if status.Phase == "" {
		status.Phase = comfy.PhaseQueued
	}
	if described.GetWorkflowExtendedInfo().GetCancelRequested() {
		status.Phase, j.waits = comfy.PhaseCanceling, false
	}
}

// mergePrompt reads the prompt activity. One that no worker has picked up waits for a GPU; one that has been picked up
// says in its heartbeat whether ComfyUI runs the prompt, and so does one that is between two attempts.
func (s *Server) mergePrompt(j *job, activity *workflow.PendingActivityInfo) {
	status := &j.status
	status.Phase, status.Progress = comfy.PhaseQueued, nil
	j.waits = s.opts.LiveHere && activity.GetState() == enums.PENDING_ACTIVITY_STATE_SCHEDULED
	var beat heartbeat
	payloads := activity.GetHeartbeatDetails()
	if payloads == nil || s.opts.Converter.FromPayloads(payloads, &beat) != nil {
		return
	}
	j.live = beat.Live
	if beat.Handle != nil {
		status.Backend = beat.Handle.Pool
		status.Attempts = max(status.Attempts, beat.Handle.Submission)
	}
	if beat.Update == nil {
		return
	}
	status.QueuePosition = beat.Update.QueuePosition
	if beat.Update.Running {
		status.Phase, status.QueuePosition = comfy.PhaseRunning, nil
		progress := beat.Update.Progress
		status.Progress = &progress
	}
	if activity.GetState() == enums.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED {
		status.Phase = comfy.PhaseCanceling
	}
}
