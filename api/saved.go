package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// readWorkflow reads the graph, or keeps what the editor saves until it can be converted.
func (j *newJob) readWorkflow() error {
	graph, err := comfy.ParseGraph(j.sub.workflow)
	j.sub.workflow = nil // read, and not to be held beside what was made of it
	var other *comfy.GraphError
	if errors.As(err, &other) && other.File != nil {
		j.saved = other.File
		return nil
	}
	if err != nil {
		return graphError(err)
	}
	j.graph = graph
	return nil
}

// digest tells one request from another, a saved workflow by what was sent: what it is converted to depends on the nodes
// that there are, and on chance where a prompt has choices.
func (j *newJob) digest() (string, error) {
	if j.saved == nil {
		return digestOf(&j.request)
	}
	sum := sha256.Sum256(j.saved)
	request := j.request
	request.Workflow = json.RawMessage(`"` + hex.EncodeToString(sum[:]) + `"`)
	return digestOf(&request)
}

// convert makes the graph of a workflow in the editor's save format. As the editor does, it has ComfyUI put the workflow
// into the pictures, so that they open there again.
func (s *Server) convert(ctx context.Context, j *newJob) error {
	if j.saved == nil {
		return nil
	}
	raw, err := s.catalogs.Convert(ctx, j.saved, backend.WantOf(&j.request))
	var unknown *comfy.Failure
	if errors.As(err, &unknown) {
		return refusal(unknown)
	}
	if err != nil {
		return graphError(err)
	}
	if j.graph, err = comfy.ParseGraph(raw); err != nil {
		return graphError(err)
	}
	if err := s.claimGraph(j); err != nil {
		return err
	}
	if j.request.ExtraPNGInfo, err = j.embedded(); err != nil {
		return err
	}
	_, err = digestOf(&j.request) // for its bound
	return err
}

// embedded is extra_pnginfo with the saved workflow, unless the client has given one of its own or wants none.
func (j *newJob) embedded() (json.RawMessage, error) {
	info := map[string]json.RawMessage{}
	if j.sub.extraPNGInfo != nil {
		if err := json.Unmarshal(j.sub.extraPNGInfo, &info); err != nil {
			return nil, failf(CodeInvalidRequest, "extra_pnginfo cannot be read.").because(err)
		}
	}
	if _, own := info["workflow"]; own || j.sub.stripMetadata {
		return j.sub.extraPNGInfo, nil
	}
	info["workflow"] = j.saved
	all, err := json.Marshal(info)
	if err != nil {
		return nil, failf(CodeInternal, "extra_pnginfo cannot be written.").because(err)
	}
	if len(all) > maxExtraPNGInfo {
		return nil, failf(CodeLimitExceeded, "The workflow in the editor's save format has %d bytes; at most %d can be put into pictures. Set strip_metadata, or send the API format.",
			len(j.saved), maxExtraPNGInfo)
	}
	return all, nil
}
