// Package visibility writes queries for Temporal's lists of workflows, and reads what these say of a job: what comfyd asks
// about its jobs as a whole.
package visibility

import (
	"path"
	"slices"
	"strings"

	"go.temporal.io/api/enums/v1"

	"github.com/comfyd/comfyd/comfy"
)

// None is the value of [comfy.AttrInputs] for a job without any. It tells such a job from one that does not say: a child
// that another team has started, or a job of a version that did not set the attribute.
const None = "none"

// markLen keeps 129 marks within the 2 KiB that Temporal allows for one attribute. Two objects of one mark are taken for
// one, on the safe side.
const markLen = 12

// Jobs is the condition that holds for jobs of comfyd.
func Jobs() string { return "WorkflowType = " + Quote(comfy.WorkflowName) }

// Open is the condition that holds for workflows that have not ended, as [IsOpen] does. Counts of all that run, which are
// asked often, go by ExecutionStatus = 'Running', for which Temporal has an index.
func Open() string { return "CloseTime IS NULL" }

// IsOpen tells whether a workflow goes on. A person can pause one, where the server allows it; it has not ended then.
func IsOpen(status enums.WorkflowExecutionStatus) bool {
	return status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING || status == enums.WORKFLOW_EXECUTION_STATUS_PAUSED
}

// Quote makes a string literal of any text, in the dialect of Temporal's queries: MySQL's.
func Quote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(text) + "'"
}

// Mark stands for an object of the store in [comfy.AttrInputs].
func Mark(key string) string {
	mark := path.Base(key)
	return mark[:min(len(mark), markLen)]
}

// Keys are the objects of the store that a job reads.
func Keys(r *comfy.Request) []string {
	var keys []string
	for _, in := range r.Images {
		keys = append(keys, in.Ref)
	}
	if r.WorkflowRef != "" {
		keys = append(keys, r.WorkflowRef)
	}
	return keys
}

// Marks are the value of [comfy.AttrInputs] for a job.
func Marks(r *comfy.Request) []string {
	var all []string
	for _, key := range Keys(r) {
		all = append(all, Mark(key))
	}
	if len(all) == 0 {
		return []string{None}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Labels are the value of [comfy.AttrMetadata].
func Labels(metadata map[string]string) []string {
	pairs := make([]string, 0, len(metadata))
	for k, v := range metadata {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	return pairs
}

// Uses is the query for the jobs that may use an input or a graph of a tenant: those that say so, open or ended, and those
// that are open and do not say. One run is left out; empty leaves out none.
func Uses(key, tenant, exceptRun string) string {
	query := Jobs()
	if exceptRun != "" {
		query += " AND RunId != " + Quote(exceptRun)
	}
	return query + " AND ((" + comfy.AttrInputs + " = " + Quote(Mark(key)) + " AND " + comfy.AttrTenant + " = " + Quote(tenant) +
		") OR (" + comfy.AttrInputs + " IS NULL AND CloseTime IS NULL))"
}
