package activities_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

const plain = `{"1":{"class_type":"LoadImage","inputs":{"image":"photo.png"}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0]}}}`

// put keeps a file below a prefix and returns its key.
func (b *bench) put(t *testing.T, prefix, content string) string {
	t.Helper()
	blob, err := b.store.PutHashed(t.Context(), prefix, strings.NewReader(content))
	require.NoError(t, err)
	return blob.Key
}

// TestAChildsFilesAreItsTenants: a parent may name anything in the store, and gets what its tenant owns.
func TestAChildsFilesAreItsTenants(t *testing.T) {
	b := newBench(t)
	b.owners = map[string]string{"own": "alice", "sibling": "", "bobs": "bob"}
	file := fmt.Sprintf("%x", sha256.Sum256([]byte("x")))
	for ref, allowed := range map[string]bool{
		b.put(t, "inputs/alice/", "x"):                 true,
		b.put(t, "graphs/alice/", "x"):                 true,
		b.put(t, comfy.OutputPrefix("own"), "x"):       true,
		b.put(t, comfy.OutputPrefix("sibling"), "x"):   true,
		b.put(t, "inputs/bob/", "x"):                   false,
		b.put(t, comfy.OutputPrefix("bobs"), "x"):      false,
		b.put(t, comfy.OutputPrefix("unknown"), "x"):   false,
		b.put(t, comfy.OutputPrefix("an ~odd id"), ""): false,
		b.put(t, "owner/", "x"):                        false,
		b.put(t, "removals/alice/", "x"):               false,
		"inputs/alice/" + strings.Repeat("0", 64):      false, // is not there
		"inputs/alice/../bob/" + file:                  false,
		"inputs/alice/" + strings.ToUpper(file):        false,
		"inputs/" + file:                               false,
	} {
		t.Run(ref, func(t *testing.T) {
			b.store.touched = nil
			job := activities.Job{ID: "j", RunID: "r", Child: true, Request: comfy.Request{
				Workflow: json.RawMessage(plain), Images: []comfy.Input{{Name: "photo.png", Ref: ref}},
			}}
			var place activities.Placement
			err := b.do(t, comfy.ActivityWarmUp, job, &place)
			if !allowed {
				f, final := failure(t, err)
				require.True(t, final)
				require.Equal(t, comfy.InvalidWorkflow, f.Code)
				require.Contains(t, f.Message, "images[0] (photo.png)")
				require.Empty(t, b.store.touched)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []comfy.Input{{Name: "photo.png", Ref: ref, SHA256: file, Size: 1}}, place.Child.Images)
			require.Equal(t, "alice", place.Child.Tenant)
			require.Equal(t, []string{file[:12]}, place.Child.Inputs)
			if !strings.HasPrefix(ref, comfy.OutputRoot) {
				require.Equal(t, []string{ref}, b.store.touched, "it is in use from here on")
			}

			var got []backend.Input
			b.double.run = func(_ context.Context, p *backend.Prompt, _ *backend.Handle, _ backend.Recorder) (*backend.Outcome, error) {
				got = p.Inputs
				return &backend.Outcome{}, nil
			}
			require.NoError(t, b.do(t, comfy.ActivityPrompt, following(job, place), nil))
			require.Len(t, got, 1)
			require.Equal(t, file, got[0].SHA256)
			require.EqualValues(t, 1, got[0].Size)
			r, err := got[0].Open(t.Context())
			require.NoError(t, err)
			raw, err := io.ReadAll(r)
			require.NoError(t, err)
			require.Equal(t, "x", string(raw))
		})
	}
}

func following(job activities.Job, place activities.Placement) activities.PromptInput {
	return activities.PromptInput{Job: job, Placement: place, Submission: 1, StartBy: time.Now().Add(time.Hour), Deadline: time.Now().Add(time.Hour)}
}

// TestAChildsGraphInTheStore is how a parent sends one that is too large for Temporal.
func TestAChildsGraphInTheStore(t *testing.T) {
	b := newBench(t)
	job := activities.Job{ID: "j", RunID: "r", Child: true, Request: comfy.Request{WorkflowRef: b.put(t, "inputs/alice/", plain)}}
	require.NoError(t, b.do(t, comfy.ActivityWarmUp, job, nil))
	job.Request.WorkflowRef = b.put(t, "inputs/bob/", plain)
	f, _ := failure(t, b.do(t, comfy.ActivityWarmUp, job, nil))
	require.Equal(t, comfy.InvalidWorkflow, f.Code)
	require.Contains(t, f.Message, "workflow_ref")

	job.Request = comfy.Request{Workflow: json.RawMessage(`{"1":"` + strings.Repeat("x", comfy.MaxInlineWorkflow) + `"}`)}
	f, final := failure(t, b.do(t, comfy.ActivityWarmUp, job, nil))
	require.True(t, final)
	require.Contains(t, f.Message, "POST /inputs", "it says what to do")
}

// TestAChildsReceiver must be one that may be called.
func TestAChildsReceiver(t *testing.T) {
	b := newBench(t)
	job := activities.Job{ID: "j", RunID: "r", Child: true, Request: comfy.Request{WorkflowRef: b.put(t, "inputs/alice/", plain), WebhookURL: "https://example.com/hook"}}
	require.NoError(t, b.do(t, comfy.ActivityWarmUp, job, nil))
	job.Request.WebhookURL = "https://10.0.0.1/hook"
	f, final := failure(t, b.do(t, comfy.ActivityWarmUp, job, nil))
	require.True(t, final)
	require.Equal(t, comfy.InvalidWorkflow, f.Code)
	require.Equal(t, "webhook_url: 10.0.0.1 is not a public address", f.Message)
}
