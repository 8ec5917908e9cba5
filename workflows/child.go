package workflows

import (
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/comfy"
)

var (
	attrTenant   = temporal.NewSearchAttributeKeyKeyword(comfy.AttrTenant)
	attrInputs   = temporal.NewSearchAttributeKeyKeywordList(comfy.AttrInputs)
	attrMetadata = temporal.NewSearchAttributeKeyKeywordList(comfy.AttrMetadata)
)

// read decodes the input of a job.
func read(input converter.RawValue) (comfy.Request, error) {
	var req comfy.Request
	if input.Payload() == nil {
		return req, failure(comfy.InvalidWorkflow, `the input is missing: it is {"workflow": {...}}`)
	}
	if err := converter.GetDefaultDataConverter().FromPayload(input.Payload(), &req); err != nil {
		return comfy.Request{}, failure(comfy.InvalidWorkflow, `the input cannot be read, it must be {"workflow": {...}}: %v`, err)
	}
	return req, nil
}

// child tells a job that another Temporal user has started from one of the API's, which have a memo. A parent can give
// its child any memo.
func child(info *workflow.Info) bool {
	_, submitted := info.Memo.GetFields()[comfy.MemoSubmission]
	return !submitted || info.ParentWorkflowExecution != nil
}

// attributes are what a placement tells about the job. Of a child nobody has said yet whose it is and what it uses.
func attributes(p *activities.Placement) []temporal.SearchAttributeUpdate {
	all := []temporal.SearchAttributeUpdate{attrBackend.ValueSet(p.Pool.Name)}
	if p.Child == nil || p.Child.Tenant == "" {
		return all
	}
	all = append(all, attrTenant.ValueSet(p.Child.Tenant), attrInputs.ValueSet(p.Child.Inputs))
	if len(p.Child.Metadata) > 0 {
		all = append(all, attrMetadata.ValueSet(p.Child.Metadata))
	}
	return all
}
