package workflows_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

var ready = &activities.Placement{
	Pool: backend.Pool{Name: "warm", Kind: "url"}, StartTimeout: time.Hour, RunTimeout: 30 * time.Minute, StallTimeout: time.Minute,
}

// TestWarm: a small job on a backend that is warm takes one durable step.
func TestWarm(t *testing.T) {
	s := &script{
		look:   func(activities.Job) (*activities.Placement, error) { return ready, nil },
		atOnce: &activities.Collected{Images: []comfy.Output{{Filename: "a.png", NodeID: "1", SHA256: "abc"}}},
		warmUp: func(context.Context, activities.Job) (*activities.Placement, error) {
			return nil, errors.New("a step too many")
		},
		collect: func(context.Context, activities.CollectInput) (*activities.Collected, error) {
			return nil, errors.New("a step too many")
		},
	}
	res, f := run(t, submittedEnv(t, s), request)
	require.Nil(t, f)
	require.Equal(t, "warm", res.Backend)
	require.Equal(t, s.atOnce.Images, res.Images)
	require.Equal(t, int64(7), res.Metrics.CollectMS)
	require.Equal(t, 1, res.Attempts)
}

// TestLook: what the look at the backends does not tell for sure is found out by the durable step.
func TestLook(t *testing.T) {
	refused := fails(comfy.InvalidWorkflow, false, false)
	for name, c := range map[string]struct {
		err  error
		code comfy.Code
	}{
		"nothing is ready":      {},
		"it fails":              {err: errors.New("no")},
		"the store has no word": {err: fails(comfy.Storage, false, false)},
		"no pool can run it":    {err: refused, code: comfy.InvalidWorkflow},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{look: func(activities.Job) (*activities.Placement, error) { return nil, c.err }}
			res, f := run(t, submittedEnv(t, s), request)
			if c.code != "" {
				require.Equal(t, c.code, f.Code)
				require.Empty(t, s.prompts)
				return
			}
			require.Nil(t, f)
			require.Equal(t, "url", res.Backend, "as the warm-up has said")
		})
	}
}

// TestLookOnlyOnce: a job that was lost waits for its next place like any other.
func TestLookOnlyOnce(t *testing.T) {
	looks := 0
	s := &script{look: func(activities.Job) (*activities.Placement, error) { looks++; return ready, nil }}
	s.prompt = func(context.Context, activities.PromptInput) (*backend.Outcome, error) {
		s.prompt = nil
		return nil, fails(comfy.BackendLost, true, true)
	}
	res, f := run(t, submittedEnv(t, s), request)
	require.Nil(t, f)
	require.Equal(t, 1, looks)
	require.Equal(t, "url", res.Backend)
	require.Equal(t, 2, res.Attempts)
}

// TestCanceledInTheLook ends the job as canceled.
func TestCanceledInTheLook(t *testing.T) {
	s := &script{}
	env := submittedEnv(t, s)
	s.look = func(activities.Job) (*activities.Placement, error) {
		env.CancelWorkflow()
		return nil, temporal.NewCanceledError()
	}
	_, f := run(t, env, request)
	require.Equal(t, comfy.Canceled, f.Code)
	require.Empty(t, s.prompts)
}

// submittedEnv is newEnv with a job of the API's: children are not looked for before they are checked.
func submittedEnv(t *testing.T, s *script) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	env := newEnv(t, s)
	require.NoError(t, env.SetMemoOnStart(map[string]any{comfy.MemoSubmission: comfy.Submission{Tenant: "default"}}))
	return env
}

// TestMetricsOfALostResult: the GPU ran all the same.
func TestMetricsOfALostResult(t *testing.T) {
	s := &script{collect: func(context.Context, activities.CollectInput) (*activities.Collected, error) {
		return nil, fails(comfy.Storage, false, false)
	}}
	_, f := run(t, submittedEnv(t, s), request)
	require.Equal(t, comfy.Storage, f.Code)
	require.Equal(t, 1.5, f.Metrics.GPUSeconds)
	require.Equal(t, "L40S", f.Metrics.GPU)
}
