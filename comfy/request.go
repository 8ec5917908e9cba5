package comfy

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Bounds of a [Request].
const (
	// MaxTimeoutSeconds is the longest run that a job may ask for.
	MaxTimeoutSeconds = 24 * 60 * 60
	// MaxStartTimeoutSeconds is the longest wait before it.
	MaxStartTimeoutSeconds = 7 * 24 * 60 * 60
	maxRequest             = 1536 << 10 // Temporal refuses payloads above 2 MiB
	// MaxImages is how many files a job may name.
	MaxImages = 128
	// MaxLabels is how many entries its metadata may have, each a label "key=value" of [AttrMetadata].
	MaxLabels = 16
	// MaxLabel bounds a label, in bytes: Temporal's limit for a keyword.
	MaxLabel = 255
	// MaxLabelBytes bounds all labels as a JSON list: Temporal's limit for one search attribute.
	MaxLabelBytes = 2 << 10
	// LabelSeparator must not stand in a label. It stands between the values of a list in Temporal's SQL stores: a value that
	// holds it would come back in parts.
	LabelSeparator = "♡"
)

// tooLarge says what to do with a graph that Temporal would not carry.
const tooLarge = "upload the workflow with POST /inputs and give its ref as workflow_ref"

// Check tells what is wrong with a request, as far as that can be known without a store and a ComfyUI. It may be called in
// workflow code: a parent calls it before it starts a child, because what is too large for Temporal ends the parent, and
// then there is no child to say why. comfyd calls it for every child, too, whose failure is then [InvalidWorkflow].
func (r *Request) Check() error {
	size := len(r.Workflow) + len(r.ExtraPNGInfo)
	switch {
	case (len(r.Workflow) == 0) == (r.WorkflowRef == ""):
		return errors.New("give either workflow or workflow_ref")
	case len(r.Workflow) > MaxInlineWorkflow:
		return fmt.Errorf("workflow has %d bytes, and at most %d travel through Temporal: %s", len(r.Workflow), MaxInlineWorkflow, tooLarge)
	case size > maxRequest:
		return fmt.Errorf("workflow and extra_pnginfo have %d bytes, and at most %d travel through Temporal: %s", size, maxRequest, tooLarge)
	case len(r.Images) > MaxImages:
		return fmt.Errorf("images: %d files; at most %d are allowed", len(r.Images), MaxImages)
	case r.TimeoutSeconds < 0 || r.TimeoutSeconds > MaxTimeoutSeconds:
		return fmt.Errorf("timeout_seconds is %d; it must be from 1 to %d", r.TimeoutSeconds, MaxTimeoutSeconds)
	case r.StartTimeoutSeconds < 0 || r.StartTimeoutSeconds > MaxStartTimeoutSeconds:
		return fmt.Errorf("start_timeout_seconds is %d; it must be from 1 to %d", r.StartTimeoutSeconds, MaxStartTimeoutSeconds)
	case r.Priority < 0 || r.Priority > 5:
		return fmt.Errorf("priority is %d; it must be 1 (first) to 5 (last)", r.Priority)
	case r.GPU != "" && !ValidGPU(r.GPU):
		return fmt.Errorf("gpu: %q is no name of a GPU, such as H100 or A100-80GB", r.GPU)
	}
	for i, in := range r.Images {
		if err := in.check(); err != nil {
			return fmt.Errorf("images[%d]: %w", i, err)
		}
	}
	if err := checkWebhook(r.WebhookURL); err != nil {
		return err
	}
	return r.checkLabels()
}

func (in *Input) check() error {
	switch {
	case in.Name == "":
		return errors.New("name is missing: it is what the graph calls the file")
	case in.Ref == "":
		return errors.New("ref is missing: it is what POST /inputs returned, or the ref of another job's output")
	case in.SHA256 != "" && in.SHA256 != path.Base(in.Ref):
		return errors.New("sha256 is not the one in ref; it may be left out")
	}
	return nil
}

func (r *Request) checkLabels() error {
	if len(r.Metadata) > MaxLabels {
		return fmt.Errorf("metadata has %d entries; at most %d are allowed", len(r.Metadata), MaxLabels)
	}
	var keys []string
	// They are sorted next, so their order does no harm in workflow code.
	//workflowcheck:ignore
	for k := range r.Metadata {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	size := len("[]")
	for _, k := range keys {
		label := k + "=" + r.Metadata[k]
		switch {
		case k == "" || strings.Contains(k, "="):
			return fmt.Errorf("metadata: the key %q is empty or holds an equals sign", k)
		case strings.Contains(label, LabelSeparator):
			return fmt.Errorf("metadata: %q holds the character %s, with which Temporal's lists tell labels apart", k, LabelSeparator)
		case len(label) > MaxLabel:
			return fmt.Errorf("metadata: key and value of %q have %d bytes together; at most %d are allowed", k, len(label)-1, MaxLabel-1)
		}
		size += len(`"",`) + jsonSize(label)
	}
	if size > MaxLabelBytes {
		return fmt.Errorf(`metadata: all labels, as the JSON list ["key=value"], have more than %d bytes`, MaxLabelBytes)
	}
	return nil
}

// AsInput makes an output of one job an input of the next, under the name that its graph calls it. No byte moves: the
// next job reads the first one's output in the store, as long as that is kept.
func (o *Output) AsInput(name string) Input {
	return Input{Name: name, Ref: o.Ref, SHA256: o.SHA256, Size: o.SizeBytes}
}
