package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/workflows"
)

// TestSweepGoesOn where the last one has stopped telling receivers, as its schedule hands it on.
func TestSweepGoesOn(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for name, last := range map[string]*activities.Swept{"the first": nil, "the next": {Told: at}, "after one of another version": {}} {
		t.Run(name, func(t *testing.T) {
			env := bareEnv()
			want := time.Time{}
			if last != nil {
				env.SetLastCompletionResult(last)
				want = last.Told
			}
			env.RegisterActivityWithOptions(func(_ context.Context, told time.Time) (*activities.Swept, error) {
				require.True(t, want.Equal(told), "%s", told)
				return &activities.Swept{Told: told.Add(time.Hour)}, nil
			}, activity.RegisterOptions{Name: activities.SweepName})
			env.ExecuteWorkflow(workflows.Sweep)
			require.NoError(t, env.GetWorkflowError())
			var swept activities.Swept
			require.NoError(t, env.GetWorkflowResult(&swept))
			require.True(t, want.Add(time.Hour).Equal(swept.Told))
		})
	}
}
