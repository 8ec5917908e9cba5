// Package visibility writes queries for Temporal's lists of workflows: what comfyd asks about its jobs as a whole.
package visibility

import (
	"path"
	"strings"

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

// Quote makes a string literal of any text, in the dialect of Temporal's queries: MySQL's.
func Quote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(text) + "'"
}

// Mark stands for an object of the store in [comfy.AttrInputs].
func Mark(key string) string {
	mark := path.Base(key)
	return mark[:min(len(mark), markLen)]
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
