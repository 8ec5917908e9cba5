package modal

import (
	"errors"
	"strings"
	"testing"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/comfyd/comfyd/comfy"
)

// TestEnding: what each way of ending at Modal means, and that nothing of Python's inside reaches the message.
func TestEnding(t *testing.T) {
	const trace = "Traceback (most recent call last):\n  File \"/opt/app.py\", line 3, in run\nStartFailed: x\n--- starts ---\n3"
	for name, c := range map[string]struct {
		status    pb.GenericResult_GenericStatus
		exception string
		ran       bool // as the item tells
		stopped   bool
		code      comfy.Code
		wantRan   bool
		says      string
	}{
		"ledger":      {pb.GenericResult_GENERIC_STATUS_FAILURE, `LedgerAway('the ledger of prompts does not answer')`, true, false, comfy.BackendUnavailable, false, "could not claim the prompt: the ledger"},
		"start":       {pb.GenericResult_GENERIC_STATUS_FAILURE, `StartFailed('no torch\n--- log ---\n/opt/secret.py: it\'s gone')`, true, false, comfy.BackendUnavailable, false, "did not come up at Modal: no torch"},
		"init":        {pb.GenericResult_GENERIC_STATUS_INIT_FAILURE, `RuntimeError("can't open /opt/x/y.py")`, true, false, comfy.BackendUnavailable, false, "did not come up at Modal: can't open y.py"},
		"stalled":     {pb.GenericResult_GENERIC_STATUS_FAILURE, `Stalled('nothing for 600 s\n--- starts ---\n2')`, true, false, comfy.Timeout, true, "nothing for 600 s"},
		"lost":        {pb.GenericResult_GENERIC_STATUS_FAILURE, `BackendLost('ComfyUI died\n--- log ---\nSegmentation fault\n--- starts ---\n3')`, true, false, comfy.BackendLost, true, "ComfyUI died"},
		"other":       {pb.GenericResult_GENERIC_STATUS_FAILURE, `KeyError('/opt/secret')`, true, false, comfy.BackendLost, true, "outside ComfyUI (KeyError)"},
		"no text":     {pb.GenericResult_GENERIC_STATUS_FAILURE, "", true, false, comfy.BackendLost, true, "no reason given"},
		"timeout":     {pb.GenericResult_GENERIC_STATUS_TIMEOUT, "Task's current input hit its timeout of 300s", false, false, comfy.Timeout, true, "COMFYD_MODAL_TIMEOUT"},
		"cancelled":   {pb.GenericResult_GENERIC_STATUS_TERMINATED, "", true, true, comfy.Canceled, true, "was cancelled"},
		"by somebody": {pb.GenericResult_GENERIC_STATUS_TERMINATED, "", false, false, comfy.BackendLost, false, "by somebody else"},
		"internal":    {pb.GenericResult_GENERIC_STATUS_INTERNAL_FAILURE, "lost", false, false, comfy.BackendLost, false, "reason of its own"},
		"evicted":     {pb.GenericResult_GENERIC_STATUS_MEMORY_MANAGER_EVICTION, "", true, false, comfy.BackendLost, true, "MEMORY_MANAGER_EVICTION"},
		"out of RAM":  {kernelOOMKill, "", true, false, comfy.OutOfMemory, true, "COMFYD_MODAL_MEMORY"},
		"thrashing":   {memoryThrashing, "", true, false, comfy.OutOfMemory, true, "COMFYD_MODAL_MEMORY"},
		"unheard of":  {99, "", false, false, comfy.BackendLost, false, "99"},
	} {
		t.Run(name, func(t *testing.T) {
			b := pb.FunctionGetOutputsItem_builder{Result: pb.GenericResult_builder{Status: c.status, Exception: c.exception, Traceback: trace}.Build()}
			if c.ran {
				b.TaskId = "ta-1"
			}
			e := ending(b.Build(), c.stopped)
			require.Equal(t, c.code, e.Code)
			require.Equal(t, c.wantRan, e.Ran)
			require.Contains(t, e.Message, c.says)
			for _, inside := range []string{"Traceback", "/opt", "--- log", "Segmentation"} {
				require.NotContains(t, e.Message, inside)
			}
			require.ErrorContains(t, e.Cause, "line 3, in run")
			require.Equal(t, c.code == comfy.BackendUnavailable && name != "ledger", errors.Is(e, errStart), "a container that is sound is not put aside")
			require.Equal(t, name == "timeout", e.Final)
			require.Equal(t, map[string]int{"lost": 2, "stalled": 1}[name], e.Restarts)
			require.NotContains(t, e.Error(), "--- starts")
		})
	}
}

func TestException(t *testing.T) {
	for repr, want := range map[string][3]string{
		`StartFailed('a\nb\n--- log ---\nc\n')`:           {"StartFailed", "a\nb", "c\n"},
		`ValueError("it's \"quoted\" \\ \xe4 ä")`:         {"ValueError", `it's "quoted" \ ä ä`, ""},
		`Stalled('a\n--- log ---\nb\n--- starts ---\n7')`: {"Stalled", "a", "b"},
		`Stalled('a\n--- starts ---\n7')`:                 {"Stalled", "a", ""},
		`Stalled('a\n--- starts ---\nfoo')`:               {"Stalled", "a\n--- starts ---\nfoo", ""},
		`ValueError('it\'s', 3)`:                          {"ValueError", "it's", ""},
		`KeyError(7)`:                                     {"KeyError", "7", ""},
		`Stalled()`:                                       {"Stalled", "", ""},
		"no exception (at all)":                           {"", "no exception (at all)", ""},
		"":                                                {"", "", ""},
		`X('cut off in the mid\`:                          {"X", `cut off in the mid\`, ""},
	} {
		class, message, log, starts := exception(repr)
		require.Equal(t, want, [3]string{class, message, log}, repr)
		require.Equal(t, strings.Count(repr, "starts ---\\n7"), starts/7, repr)
	}
	require.Less(t, len(tail(strings.Repeat("ä", 10_000))), maxCause+10)
}

// TestRefused: only an error that is certain to have had no effect counts as a refusal.
func TestRefused(t *testing.T) {
	for err, want := range map[error]bool{
		status.Error(codes.ResourceExhausted, "slow down"):                                                 true,
		status.Error(codes.Unauthenticated, "who"):                                                         true,
		status.Error(codes.NotFound, "no"):                                                                 true,
		status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial"`): true,
		status.Error(codes.Unavailable, "error reading from server: EOF"):                                  false,
		status.Error(codes.Unavailable, "upstream is busy"):                                                false,
		status.Error(codes.DeadlineExceeded, "late"):                                                       false,
		status.Error(codes.Internal, "oops"):                                                               false,
		errors.New("something else"):                                                                       false,
	} {
		require.Equal(t, want, refused(err), "%v", err)
	}
}
