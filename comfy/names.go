package comfy

import (
	"crypto/sha256"
	"fmt"
	"regexp"
)

// Names in Temporal. They are part of the contract: workers and callers in other languages use the same strings.
const (
	// WorkflowName is the registered type of the workflow that carries one job. It takes a [Request] and returns a [Result].
	WorkflowName = "ComfyUIWorkflow"
	// TaskQueue carries workflow tasks and warm-up.
	TaskQueue = "comfyui"
	// QueryStatus is the query that answers with a [Status]. It takes no argument.
	QueryStatus = "status"
	// SignalPoolGone tells a job that no worker serves the named pool any more. Its argument is the pool's name, a
	// string; a job that is not on that pool passes it over.
	SignalPoolGone = "pool_gone"
	// MemoSubmission is the memo field of a job's start that holds its [Submission].
	MemoSubmission = "submission"
)

// Names in Nexus, for callers in other namespaces.
const (
	// NexusEndpoint is the endpoint as comfyd makes it; a cluster's operator may call it otherwise.
	NexusEndpoint = "comfyd"
	// NexusService is the service behind it.
	NexusService = "comfyd"
	// NexusRun is the operation that carries one job: it takes a [Request] and returns a [Result], as [WorkflowName] does.
	NexusRun = "run"
)

// Names of the activities, in the order in which a job meets them.
const (
	ActivityLook    = "Look" // a local one; WarmUp follows where it finds nothing
	ActivityWarmUp  = "WarmUp"
	ActivityPrompt  = "Prompt"
	ActivityCollect = "Collect"
	// ActivityStop stops a prompt that nobody follows any more.
	ActivityStop = "Stop"
)

// Typed search attributes of a job, for lists in the Temporal UI and for GET /jobs.
const (
	AttrBackend   = "ComfyBackend"   // Keyword: the pool that runs the job
	AttrTenant    = "ComfyTenant"    // Keyword: the owner of the key that submitted it
	AttrErrorCode = "ComfyErrorCode" // Keyword: the Code of a failed job
	AttrAttempts  = "ComfyAttempts"  // Int: how often a GPU was given the job, of one that needed more than one attempt
	AttrMetadata  = "ComfyMetadata"  // KeywordList: "key=value" for each entry of Request.Metadata
	AttrInputs    = "ComfyInputs"    // KeywordList: the first 12 digits of the hash of each input, and of the graph, in the store; "none"
)

// PromptTaskQueue is the queue of the workers that may run prompts on a pool. It is apart from [TaskQueue] so that
// waiting for a GPU never keeps a finished job's images from being collected.
func PromptTaskQueue(pool string) string { return "comfyui-gpu-" + pool }

// CollectTaskQueue is where the outputs of a pool are collected and its prompts stopped: by workers that reach it.
func CollectTaskQueue(pool string) string { return "comfyui-collect-" + pool }

// Where things lie in the store. The hex SHA-256 of the content follows.

// InputPrefix is where a tenant's input files lie.
func InputPrefix(tenant string) string { return "inputs/" + tenant + "/" }

// GraphPrefix is where a tenant's graphs lie that are too large for a [Request].
func GraphPrefix(tenant string) string { return "graphs/" + tenant + "/" }

// OutputRoot is where the outputs of all jobs lie.
const OutputRoot = "outputs/"

// plainID takes the IDs that SDKs make, and those of a schedule's runs, which end in a time.
var plainID = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._:-]{0,127}$`)

// OutputPrefix is where a job's outputs lie. The ID of a child that another team has started may be any text: one that
// is no plain name goes by its hash, after a tilde. An output of such a job cannot be another job's input.
func OutputPrefix(jobID string) string {
	if !plainID.MatchString(jobID) {
		jobID = fmt.Sprintf("~%x", sha256.Sum256([]byte(jobID)))
	}
	return OutputRoot + jobID + "/"
}

// Submission is what the API remembers about a job beside its input, in the start memo: who sent it, and the digest
// that tells a repeated request from a different one under the same Idempotency-Key.
type Submission struct {
	Tenant    string `json:"tenant"`
	Digest    string `json:"digest"`
	RequestID string `json:"request_id,omitempty"`
	// Address is the one under which a client with a webhook has reached the API, where nobody has set another for links.
	Address string `json:"address,omitempty"`
}
