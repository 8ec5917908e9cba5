package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
)

// explained says an error in the workflow's own terms.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }

// explain names the nodes of an error by their titles, and lists what is wrong with them one a line.
func explain(err error, g graph) error {
	var failed *comfy.Failure
	var refused *client.Error
	switch {
	case errors.As(err, &failed):
		text, message := "the job failed", failed.Message
		if id := failed.NodeID; id != "" {
			text += " at " + g.name(id)
			// The server names the node, too, where it knows no title.
			message = strings.TrimPrefix(message, fmt.Sprintf("node %s (%s): ", id, g[id].ClassType))
		}
		if failed.Code == comfy.InvalidWorkflow && len(failed.NodeErrors) > 0 {
			message = "ComfyUI cannot run this workflow" // the reasons stand below
		}
		text += fmt.Sprintf(": %s (%s)", message, failed.Code)
		return &explained{printable(text + list(failed.NodeErrors, g)), err}
	case errors.As(err, &refused):
		plain := *refused
		plain.Message = head(refused.Message, refused.NodeErrors)
		text := strings.Replace(err.Error(), refused.Error(), plain.Error(), 1) // err may say more around it
		if refused.HTTPStatus == http.StatusUnauthorized {
			text += "; give a key with --key or COMFYD_API_KEY"
		}
		return &explained{printable(text + list(refused.NodeErrors, g)), err}
	}
	return err
}

// head is a message without the reasons that list says node by node.
func head(message string, errs comfy.NodeErrors) string {
	if len(errs) == 0 {
		return message
	}
	rest := strings.Join(strings.Fields(strings.Replace(message, errs.Summary(), "", 1)), " ")
	return cmp.Or(rest, "The workflow cannot run.")
}

// list is one line for each reason, in the order of the nodes.
func list(errs comfy.NodeErrors, g graph) string {
	var b strings.Builder
	for _, id := range slices.SortedFunc(maps.Keys(errs), byNumber) {
		name := g.name(id)
		if _, known := g[id]; !known && errs[id].ClassType != "" {
			name += " (" + errs[id].ClassType + ")"
		}
		for _, e := range errs[id].Errors {
			text := e.Message
			if e.Details != "" {
				text += ": " + e.Details
			}
			fmt.Fprintf(&b, "\n  %s: %s", name, short(strings.ReplaceAll(text, "\n", " "), 500))
		}
	}
	return b.String()
}

// byNumber orders "10" after "9".
func byNumber(a, b string) int {
	x, errX := strconv.Atoi(a)
	y, errY := strconv.Atoi(b)
	if errX == nil && errY == nil {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(a, b)
}
