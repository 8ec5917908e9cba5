package comfy

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

// Names of the activities, in the order in which a job meets them.
const (
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
	AttrMetadata  = "ComfyMetadata"  // KeywordList: "key=value" for each entry of Request.Metadata
)

// PromptTaskQueue is the queue of the workers that may run prompts on a pool. It is apart from [TaskQueue] so that
// waiting for a GPU never keeps a finished job's images from being collected.
func PromptTaskQueue(pool string) string { return "comfyui-gpu-" + pool }

// CollectTaskQueue is where the outputs of a pool are collected and its prompts stopped: by workers that reach it.
func CollectTaskQueue(pool string) string { return "comfyui-collect-" + pool }

// Submission is what the API remembers about a job beside its input, in the start memo: who sent it, and the digest
// that tells a repeated request from a different one under the same Idempotency-Key.
type Submission struct {
	Tenant    string `json:"tenant"`
	Digest    string `json:"digest"`
	RequestID string `json:"request_id,omitempty"`
}
