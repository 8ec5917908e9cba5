package workflows

import (
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/comfy"
)

// Register makes all workflows known to a worker, or to a replayer. What it says of versions counts only where the worker has
// one: a job keeps to the version that has begun it, so that its code never changes under it; a sweep, which may take hours
// and is one activity, and a webhook, which may wait for its receiver for a day, go on with the newest, so that no old version
// is kept for them.
func Register(r worker.WorkflowRegistry) {
	r.RegisterWorkflowWithOptions(ComfyUI, workflow.RegisterOptions{Name: comfy.WorkflowName, VersioningBehavior: workflow.VersioningBehaviorPinned})
	r.RegisterWorkflowWithOptions(Sweep, workflow.RegisterOptions{Name: SweepName, VersioningBehavior: workflow.VersioningBehaviorAutoUpgrade})
	r.RegisterWorkflowWithOptions(Webhook, workflow.RegisterOptions{Name: comfy.WebhookWorkflowName, VersioningBehavior: workflow.VersioningBehaviorAutoUpgrade})
}
