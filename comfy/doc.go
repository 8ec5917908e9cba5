// Package comfy is the contract of a comfyd job: the names under which Temporal knows it, the request and result that
// travel as JSON, the closed list of error codes, and the checks that tell a runnable ComfyUI graph from one that
// ComfyUI would refuse or, worse, die of.
//
// It imports the standard library only and is a module of its own, so that another team's worker can start
// [WorkflowName] as a child without dragging comfyd's dependencies along.
package comfy
