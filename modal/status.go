package modal

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/comfy"
)

// logMark stands between an exception's message and the end of ComfyUI's log, in what the app raises.
const logMark = "\n--- log ---\n"

// startsMark stands at the very end of what the app raises, and after it how many containers have begun the prompt, where
// that is more than one.
const startsMark = "\n--- starts ---\n"

// maxCause bounds what of a traceback or a log goes into an error's cause, which Temporal keeps.
const maxCause = 6000

// Statuses that the Go stubs of v0.11.1 do not name yet (api.proto of modal 1.6.4): the container hit its own memory
// limit. MEMORY_MANAGER_EVICTION is another matter: there the machine was short of memory.
const (
	memoryThrashing pb.GenericResult_GenericStatus = 9
	kernelOOMKill   pb.GenericResult_GenericStatus = 10
)

// errStart says that a container did not come up, so that no other should be tried at once.
var errStart = errors.New("the container did not come up")

// ending is the error of a call that did not succeed. Stopped says that this process has cancelled it.
//
// Only strings cross from Python: the exception's class is read from its repr (modal 1.6.4, container_io_manager.py:
// output_items_exception). A cancelled call has no text at all, so that its status counts alone.
func ending(item *pb.FunctionGetOutputsItem, stopped bool) *backend.Error {
	r := item.GetResult()
	class, message, log, starts := exception(r.GetException())
	e := &backend.Error{Restarts: max(starts-1, 0), Ran: item.GetInputStartedAt() > 0 || item.GetTaskId() != "", Cause: evidence(item, log)}
	switch r.GetStatus() {
	case pb.GenericResult_GENERIC_STATUS_FAILURE:
		e.Ran = true
		switch class {
		case "StartFailed":
			notStarted(e, message)
		case "LedgerAway": // the container is sound, and nothing has run
			e.Code, e.Ran, e.Message = comfy.BackendUnavailable, false, "the app at Modal could not claim the prompt: "+sentence(message)
		case "Stalled":
			e.Code, e.Message = comfy.Timeout, "the prompt showed no sign of life at Modal: "+sentence(message)
		case "BackendLost":
			e.Code, e.Message = comfy.BackendLost, "the ComfyUI at Modal was lost: "+sentence(message)
		default:
			e.Code, e.Message = comfy.BackendLost, fmt.Sprintf("the app at Modal failed outside ComfyUI (%s); the worker's log has the traceback", orElse(class, "no reason given"))
		}
	case pb.GenericResult_GENERIC_STATUS_INIT_FAILURE:
		notStarted(e, message)
	case pb.GenericResult_GENERIC_STATUS_TIMEOUT:
		e.Final = true // a second run would meet the same limit
		e.Code, e.Message, e.Ran = comfy.Timeout, "Modal ended the call at its own limit; deploy the app with a larger COMFYD_MODAL_TIMEOUT", true
	case pb.GenericResult_GENERIC_STATUS_TERMINATED:
		if e.Code, e.Message = comfy.BackendLost, "the call was cancelled at Modal, by somebody else or because the app was stopped"; stopped {
			e.Code, e.Message = comfy.Canceled, "the prompt was cancelled"
		}
	case memoryThrashing, kernelOOMKill:
		e.Code, e.Message, e.Ran = comfy.OutOfMemory, "the container at Modal ran out of main memory; deploy the app with a larger COMFYD_MODAL_MEMORY", true
	case pb.GenericResult_GENERIC_STATUS_INTERNAL_FAILURE:
		e.Code, e.Message = comfy.BackendLost, "Modal failed to run the call, for a reason of its own"
	default:
		e.Code, e.Message = comfy.BackendLost, fmt.Sprintf("the call ended at Modal as %s", statusName(item))
	}
	return e
}

// notStarted makes e the error of a container that did not come up: no run, and none is lost.
func notStarted(e *backend.Error, message string) {
	e.Code, e.Ran = comfy.BackendUnavailable, false
	e.Message = "a GPU container did not come up at Modal: " + sentence(message)
	e.Cause = errors.Join(errStart, e.Cause)
}

// sentence is what of a message from Python goes to the person who sent the job.
func sentence(message string) string {
	return orElse(firstLine(comfyui.Scrub(message)), "no reason given")
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// statusName is a call's status without the prefix.
func statusName(item *pb.FunctionGetOutputsItem) string {
	return strings.TrimPrefix(item.GetResult().GetStatus().String(), "GENERIC_STATUS_")
}

// evidence is what a log should hold about a call that failed.
func evidence(item *pb.FunctionGetOutputsItem, log string) error {
	r := item.GetResult()
	text := fmt.Sprintf("%s in container %s", statusName(item), orElse(item.GetTaskId(), "unknown"))
	if class, message, _, _ := exception(r.GetException()); class != "" || message != "" {
		text += ": " + class + ": " + tail(message)
	}
	trace, _, _ := strings.Cut(r.GetTraceback(), logMark) // the exception's own text stands at its end
	if trace, _, _ = strings.Cut(trace, startsMark); trace != "" {
		text += "\n" + tail(trace)
	}
	if log != "" {
		text += logMark + tail(log)
	}
	return errors.New(text)
}

// tail is the end of a text: what it came to.
func tail(text string) string {
	if len(text) <= maxCause {
		return text
	}
	return "…" + strings.ToValidUTF8(text[len(text)-maxCause:], "")
}

// exception takes Python's repr of an exception apart: its class, its first argument, and what the app adds to that: a
// log, and how many containers have begun the prompt (0 where it does not say).
func exception(repr string) (class, message, log string, starts int) {
	class, rest, ok := strings.Cut(repr, "(")
	if !ok || strings.ContainsAny(class, " \n'\"") {
		return "", repr, "", 0
	}
	message = pythonString(strings.TrimSuffix(rest, ")"))
	if at := strings.LastIndex(message, startsMark); at >= 0 {
		if n, err := strconv.Atoi(message[at+len(startsMark):]); err == nil {
			message, starts = message[:at], n
		}
	}
	message, log, _ = strings.Cut(message, logMark)
	return class, message, log, starts
}

// pythonString reads a Python string literal at the start of a text; what is none comes back as it is.
func pythonString(text string) string {
	if text == "" || (text[0] != '\'' && text[0] != '"') {
		return text
	}
	quote, rest := text[0], text[1:]
	var out strings.Builder
	for rest != "" && rest[0] != quote {
		if rest[0] == '\\' && len(rest) > 1 && rest[1] == '\'' { // not known to Go within double quotes
			out.WriteByte('\'')
			rest = rest[2:]
			continue
		}
		r, _, next, err := strconv.UnquoteChar(rest, '"')
		if err != nil {
			r, next = rune(rest[0]), rest[1:]
		}
		out.WriteRune(r)
		rest = next
	}
	return out.String()
}
