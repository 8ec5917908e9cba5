package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

// TestAChildSaysWhoseItIs in the search attributes, which the API sets for its own jobs when it starts them.
func TestAChildSaysWhoseItIs(t *testing.T) {
	found := &activities.Child{Tenant: "bob", Inputs: []string{"none"}, Metadata: []string{"shot=7"}}
	for name, c := range map[string]struct {
		memo  any
		child bool
	}{
		"the API's":  {comfy.Submission{Tenant: "alice"}, false},
		"of another": {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			var told activities.Job
			s := &script{}
			s.warmUp = func(_ context.Context, j activities.Job) (*activities.Placement, error) {
				told = j
				p := &activities.Placement{Pool: backend.Pool{Name: "url", Kind: "url"}, StartTimeout: time.Hour, RunTimeout: time.Hour}
				if j.Child {
					p.Child = found
				}
				return p, nil
			}
			env := newEnv(t, s)
			if c.memo != nil {
				require.NoError(t, env.SetMemoOnStart(map[string]any{comfy.MemoSubmission: c.memo}))
			}
			want := []temporal.SearchAttributeUpdate{temporal.NewSearchAttributeKeyKeyword(comfy.AttrBackend).ValueSet("url")}
			if c.child {
				want = append(want,
					temporal.NewSearchAttributeKeyKeyword(comfy.AttrTenant).ValueSet("bob"),
					temporal.NewSearchAttributeKeyKeywordList(comfy.AttrInputs).ValueSet([]string{"none"}),
					temporal.NewSearchAttributeKeyKeywordList(comfy.AttrMetadata).ValueSet([]string{"shot=7"}))
			}
			env.OnUpsertTypedSearchAttributes(temporal.NewSearchAttributes(want...)).Return(nil).Once()
			_, f := run(t, env, request)
			require.Nil(t, f)
			require.Equal(t, c.child, told.Child)
			env.AssertExpectations(t)
			require.Equal(t, c.child, s.prompts[0].Placement.Child != nil, "the prompt takes the files as they were found")
		})
	}
}

// TestOnlyWhatMayDoBetterIsTriedAgain by a parent's retry policy.
func TestOnlyWhatMayDoBetterIsTriedAgain(t *testing.T) {
	for code, again := range map[comfy.Code]bool{
		comfy.BackendLost: true, comfy.BackendUnavailable: true, comfy.OutputLost: true, comfy.Storage: true, comfy.Internal: true,
		comfy.InvalidWorkflow: false, comfy.NodeFailed: false, comfy.OutOfMemory: false, comfy.Timeout: false,
	} {
		s := &script{warmUp: func(context.Context, activities.Job) (*activities.Placement, error) {
			return nil, fails(code, false, false)
		}}
		env := newEnv(t, s)
		_, f := run(t, env, request)
		require.Equal(t, code, f.Code)
		var app *temporal.ApplicationError
		require.ErrorAs(t, env.GetWorkflowError(), &app)
		require.Equal(t, again, !app.NonRetryable(), code)
	}
}

// TestAnInputThatIsNone is a failure with a code.
func TestAnInputThatIsNone(t *testing.T) {
	for want, in := range map[string]any{
		"Request.timeout_seconds of type int": map[string]any{"workflow": map[string]any{}, "timeout_seconds": "soon"},
		"the input cannot be read":            "a picture of a cat",
	} {
		env := newEnv(t, &script{})
		env.ExecuteWorkflow(comfy.WorkflowName, in)
		var app *temporal.ApplicationError
		require.ErrorAs(t, env.GetWorkflowError(), &app)
		require.Equal(t, string(comfy.InvalidWorkflow), app.Type())
		require.Contains(t, app.Message(), want)
	}
}
