package workflows

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/comfy"
)

// Bounds of what the current details repeat, in bytes.
const (
	maxReason = 1500 // why the job failed
	maxLost   = 300  // why a submission was lost
)

// changeAttempts marks jobs that tell in their search attributes how many attempts they needed.
const changeAttempts = "attempts"

var attrAttempts = temporal.NewSearchAttributeKeyInt64(comfy.AttrAttempts)

// say keeps the query's answer and the Temporal UI's "current details" in step.
func (j *job) say(ctx workflow.Context, p comfy.Phase, format string, args ...any) {
	j.status.Phase = p
	j.show(ctx, string(p), fmt.Sprintf(format, args...))
}

// show sets the current details, markdown. They cost no history. What clients or nodes have written belongs into
// [comfy.Literal].
func (j *job) show(ctx workflow.Context, state, text string) {
	lines := []string{"**" + state + "**: " + text}
	if j.about != "" {
		lines = append([]string{j.about, ""}, lines...)
	}
	if len(j.lost) > 0 {
		lines = append(append(lines, ""), j.lost...)
	}
	workflow.SetCurrentDetails(ctx, strings.Join(lines, "\n"))
}

// count is a number of things for a person.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// aboutOf describes a job that has not come through the API, which gives its jobs a summary: their parents may have given
// none. Empty where the graph lies in the store.
func aboutOf(ctx workflow.Context, req comfy.Request) string {
	if memo := workflow.GetInfo(ctx).Memo; memo.GetFields()[comfy.MemoSubmission] != nil || len(req.Workflow) == 0 {
		return ""
	}
	g, err := comfy.ParseGraph(req.Workflow) //workflowcheck:ignore it goes by its input alone
	if err != nil {
		return "" // the warm-up says what is wrong with it
	}
	return g.Describe().Summary(req.Metadata[comfy.TitleLabel])
}

// note keeps for the details why a submission was lost.
func (j *job) note(reason string) {
	j.lost = append(j.lost, fmt.Sprintf("- submission %d to %s was lost: %s", j.submission, j.status.Backend, comfy.Literal(reason, maxLost)))
}

// countAttempts puts the attempts of a job that needs more than one into its search attributes. Others save the step.
func (j *job) countAttempts(ctx workflow.Context) {
	n := int64(j.attempts())
	if n == j.counted || n < 2 && j.counted == 0 || workflow.GetVersion(ctx, changeAttempts, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return
	}
	j.counted = n
	if err := workflow.UpsertTypedSearchAttributes(ctx, attrAttempts.ValueSet(n)); err != nil {
		workflow.GetLogger(ctx).Error("the attempts are missing in the search attributes", "error", err)
	}
}
