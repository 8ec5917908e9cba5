package comfy

// Names in Temporal. They are part of the contract: workers and callers in other languages use the same strings.
const (
	// WorkflowName is the registered type of the workflow that carries one job. It takes a [Request] and returns a [Result].
	WorkflowName = "ComfyUIWorkflow"
	// TaskQueue carries workflow tasks, warm-up and collection.
	TaskQueue = "comfyui"
	// QueryStatus is the query that answers with a [Status]. It takes no argument.
	QueryStatus = "status"
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

// CollectTaskQueue is where the outputs of a pool are collected: [TaskQueue], which every worker serves, unless the
// pool can be reached from its own host only.
func CollectTaskQueue(pool string, hostBound bool) string {
	if hostBound {
		return "comfyui-collect-" + pool
	}
	return TaskQueue
}

// Submission is what the API remembers about a job beside its input, in the start memo: who sent it, and the digest
// that tells a repeated request from a different one under the same Idempotency-Key.
type Submission struct {
	Tenant    string `json:"tenant"`
	Digest    string `json:"digest"`
	RequestID string `json:"request_id,omitempty"`
}
