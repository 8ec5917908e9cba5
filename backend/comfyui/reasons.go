package comfyui

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

const (
	maxMessage = 2000 // characters of a message that came from a node
	maxAllowed = 50   // values of a list that are repeated to the client
	maxValue   = 1024 // bytes of a received value
)

var (
	// A path from the root, Unix or Windows, that is not part of a URL; its last element says enough.
	absolutePath = regexp.MustCompile(`(^|[\s'"` + "`" + `(\[{=,<])(?:[A-Za-z]:[\\/]|/)(?:[^\s\\/:*?"'<>|]+[\\/]+)+([^\s\\/:*?"'<>|]*)`)
	// A frame of a Python traceback with the line of source after it.
	frameLine = regexp.MustCompile(`(?m)^\s*File "[^"]*", line \d+.*\n?(?:[ \t]{4,}.*\n?)*`)
	traceHead = regexp.MustCompile(`(?m)^\s*Traceback \(most recent call last\):\s*\n?`)
)

// Scrub keeps the human part of a text that came from Python: no traceback, no path of the server.
func Scrub(text string) string {
	text = traceHead.ReplaceAllString(text, "")
	text = frameLine.ReplaceAllString(text, "")
	text = strings.TrimSpace(absolutePath.ReplaceAllString(text, "$1$2"))
	if utf8.RuneCountInString(text) > maxMessage {
		text = string([]rune(text)[:maxMessage]) + "…"
	}
	return text
}

// Refused is the error of a prompt that ComfyUI does not take.
func Refused(g *comfy.Graph, a *Answer) *backend.Error {
	e := &backend.Error{Code: comfy.InvalidWorkflow, NodeErrors: nodeErrors(g, a.NodeErrors)}
	if len(e.NodeErrors) > 0 {
		e.Message = summary(e.NodeErrors)
		return e
	}
	e.Message = "ComfyUI refused the workflow without saying why"
	if a.Error != nil && (a.Error.Message != "" || a.Error.Details != "") {
		e.Message = "ComfyUI refused the workflow: " + join(Scrub(a.Error.Message), Scrub(a.Error.Details))
	}
	return e
}

func join(message, details string) string {
	switch {
	case details == "":
		return message
	case message == "":
		return details
	}
	return strings.TrimRight(message, ".: ") + ": " + details
}

// nodeErrors translates ComfyUI's node_errors. What it does not understand of an entry it leaves out, never the node.
func nodeErrors(g *comfy.Graph, raw map[string]json.RawMessage) comfy.NodeErrors {
	out := comfy.NodeErrors{}
	for id, data := range raw {
		var entry struct {
			ClassType string `json:"class_type"`
			Errors    []struct {
				Refusal
				Extra map[string]json.RawMessage `json:"extra_info"`
			} `json:"errors"`
			Dependent []string `json:"dependent_outputs"`
		}
		_ = json.Unmarshal(data, &entry)
		ne := comfy.NodeError{ClassType: entry.ClassType, DependentOutputs: append([]string{}, entry.Dependent...)}
		if ne.ClassType == "" && g.Nodes[id] != nil {
			ne.ClassType = g.Nodes[id].ClassType
		}
		for _, e := range entry.Errors {
			ie := comfy.InputError{Type: e.Type, Message: Scrub(e.Message), Details: Scrub(e.Details), ExtraInfo: extraInfo(e.Extra)}
			if e.Type == "exception_during_validation" {
				ie.Message = "ComfyUI could not check this node; most often one of its links is wrong"
			}
			ne.Errors = append(ne.Errors, ie)
		}
		if len(ne.Errors) == 0 {
			ne.Errors = []comfy.InputError{{Type: "unknown", Message: "ComfyUI refused this node without saying why"}}
		}
		out[id] = ne
	}
	return out
}

// extraInfo keeps what helps a person, and not the traceback and lists of thousands of files that stand beside it.
func extraInfo(extra map[string]json.RawMessage) map[string]any {
	out := map[string]any{}
	for _, key := range []string{"input_name", "received_value", "received_type", "exception_type"} {
		var v any
		raw, ok := extra[key]
		if !ok || len(raw) > maxValue || json.Unmarshal(raw, &v) != nil {
			continue
		}
		if _, number := v.(float64); number {
			v = raw // keeps its digits
		}
		if text, ok := v.(string); ok {
			v = Scrub(text)
		}
		out[key] = v
	}
	var config []json.RawMessage
	if json.Unmarshal(extra["input_config"], &config) == nil {
		if allowed := allowed(config); allowed != nil {
			out["allowed"] = allowed
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// allowed reads an input's declaration: [[values...], {...}] or ["INT", {"min":..., "max":...}].
func allowed(config []json.RawMessage) any {
	if len(config) == 0 {
		return nil
	}
	var values []any
	if json.Unmarshal(config[0], &values) == nil {
		return values[:min(len(values), maxAllowed)]
	}
	limits := map[string]json.RawMessage{}
	if len(config) > 1 {
		var o map[string]json.RawMessage
		_ = json.Unmarshal(config[1], &o)
		for _, key := range []string{"min", "max"} {
			if v, ok := o[key]; ok {
				limits[key] = v
			}
		}
	}
	if len(limits) == 0 {
		return nil
	}
	return limits
}

// summary words the first few of the reasons in one line.
func summary(errs comfy.NodeErrors) string {
	var parts []string
	ids := slices.SortedFunc(maps.Keys(errs), comfy.CompareIDs)
	for _, id := range ids {
		if len(parts) == 3 {
			parts = append(parts, fmt.Sprintf("and %d more nodes", len(ids)-3))
			break
		}
		why := "is not accepted"
		if list := errs[id].Errors; len(list) > 0 {
			why = join(list[0].Message, list[0].Details)
		}
		parts = append(parts, fmt.Sprintf("node %s (%s): %s", id, errs[id].ClassType, why))
	}
	return strings.Join(parts, "; ")
}

// Unserved is the error of files that ComfyUI has made and never hands out; nil where there are none. Another run would
// make the same.
func Unserved(files []backend.File) error {
	for _, f := range files {
		if !comfy.Served(f.Filename) {
			return &backend.Error{Code: comfy.NodeFailed, NodeID: f.NodeID, Ran: true, Message: fmt.Sprintf(
				"node %s has saved a file that ComfyUI does not hand out: its name, %q, has a line break or two dots in a row", f.NodeID, f.Filename)}
		}
	}
	return nil
}

// Failure is the error of a prompt that ended without success; nil for one that ended well. ComfyUI calls it a success,
// too, where it has found out on the way that nodes depend on each other in a circle, and stopped (seen on 0.3.75).
func (e *History) Failure() *backend.Error {
	well := e.Status.Str == "success" || (e.Status.Str == "" && e.Message("execution_success") != nil)
	if well && e.Message("execution_error") == nil {
		return nil
	}
	err := failed(e)
	err.Ran = true
	return err
}

// failed is the error of a prompt that ComfyUI has ended without success.
func failed(e *History) *backend.Error {
	if n := e.Message("execution_interrupted"); n != nil {
		return &backend.Error{Code: comfy.Canceled, NodeID: n.NodeID, Message: fmt.Sprintf("somebody interrupted the prompt at node %s (%s)", n.NodeID, n.NodeType)}
	}
	if n := e.Message("execution_error"); n != nil {
		return NodeFailed(n)
	}
	return backend.Errorf(comfy.NodeFailed, "ComfyUI ended the prompt as %q and does not say why", e.Status.Str)
}

// NodeFailed is the error of a node that raised an exception.
func NodeFailed(n *Note) *backend.Error {
	code := comfy.NodeFailed
	if outOfMemory(n.Exception, n.Message) {
		code = comfy.OutOfMemory
	}
	return &backend.Error{Code: code, NodeID: n.NodeID,
		Message: fmt.Sprintf("node %s (%s): %s", n.NodeID, n.NodeType, join(n.Exception, Scrub(n.Message)))}
}

// outOfMemory knows the exceptions of torch, numpy and Python, and the texts of those that have no class of their own.
func outOfMemory(exception, message string) bool {
	if strings.HasSuffix(exception, "OutOfMemoryError") || strings.HasSuffix(exception, "MemoryError") {
		return true
	}
	message = strings.ToLower(message)
	for _, text := range []string{"out of memory", "can't allocate memory", "cannot allocate memory", "allocation on device"} {
		if strings.Contains(message, text) {
			return true
		}
	}
	return false
}
