package faults

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/protobuf/proto"

	"github.com/comfyd/comfyd/comfy"
)

func (w *world) dial(limit time.Duration) (client.Client, error) {
	ctx, done := context.WithTimeout(context.Background(), limit)
	defer done()
	return client.DialContext(ctx, client.Options{HostPort: w.temporal, Logger: log.NewStructuredLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))})
}

// temporalSays reads the jobs' histories and counts the jobs, and among them those that clients do not know and that were
// canceled.
func (w *world) temporalSays(ids []string) (histories map[string][]byte, jobs, withdrawn int) {
	w.t.Helper()
	c, err := w.dial(time.Minute)
	require.NoError(w.t, err)
	defer c.Close()
	ctx, done := context.WithTimeout(context.Background(), 5*time.Minute)
	defer done()
	histories = map[string][]byte{}
	for _, id := range w.sample(ids) {
		var all []byte
		for it := c.GetWorkflowHistory(ctx, id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
			e, err := it.Next()
			require.NoError(w.t, err)
			if all, err = (proto.MarshalOptions{}).MarshalAppend(all, e); err != nil {
				require.NoError(w.t, err)
			}
		}
		require.NotEmpty(w.t, all)
		histories["the history of "+id] = all
	}
	require.Eventually(w.t, func() bool { // lists come a little later than what they list
		r, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: "WorkflowType = '" + comfy.WorkflowName + "'"})
		require.NoError(w.t, err)
		jobs = int(r.GetCount())
		return jobs >= len(ids)
	}, 5*time.Minute, 100*time.Millisecond, "Temporal lists the jobs")
	for _, status := range w.strangers(ctx, c, ids) {
		if status == enums.WORKFLOW_EXECUTION_STATUS_CANCELED {
			withdrawn++
		}
	}
	return histories, jobs, withdrawn
}

// strangers are jobs that run or were canceled, and that no client knows. It gives those that run the time to end.
func (w *world) strangers(ctx context.Context, c client.Client, ids []string) map[string]enums.WorkflowExecutionStatus {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); ; <-time.After(100 * time.Millisecond) {
		found, open := map[string]enums.WorkflowExecutionStatus{}, false
		r, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{PageSize: 1000,
			Query: "WorkflowType = '" + comfy.WorkflowName + "' AND ExecutionStatus IN ('Running', 'Canceled')"})
		require.NoError(w.t, err)
		for _, e := range r.GetExecutions() {
			if id := e.GetExecution().GetWorkflowId(); !slices.Contains(ids, id) {
				found[id] = e.GetStatus()
				open = open || e.GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING
			}
		}
		if !open || time.Now().After(end) {
			return found
		}
	}
}

// attempt is the Prompt activity of a job as Temporal knows it; nil where there is none pending.
func (w *world) attempt(c client.Client, id string) (*workflow.PendingActivityInfo, bool, error) {
	ctx, done := context.WithTimeout(context.Background(), 2*time.Second)
	defer done()
	d, err := c.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return nil, false, err
	}
	for _, a := range d.GetPendingActivities() {
		if a.GetActivityType().GetName() == comfy.ActivityPrompt {
			return a, true, nil
		}
	}
	return nil, d.GetWorkflowExecutionInfo().GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}

// follows waits until a worker has taken up the job's prompt after a moment, by the heartbeats that Temporal has, or the
// prompt has ended; and returns how long after it.
func (w *world) follows(id string, moment time.Time) time.Duration {
	w.t.Helper()
	var c client.Client
	require.Eventually(w.t, func() bool {
		var err error
		if c == nil {
			if c, err = w.dial(time.Second); err != nil {
				c = nil
				return false
			}
		}
		a, _, err := w.attempt(c, id)
		if err != nil {
			c.Close()
			c = nil
			return false
		}
		return a == nil || (a.GetState() == enums.PENDING_ACTIVITY_STATE_STARTED && a.GetLastHeartbeatTime().AsTime().After(moment))
	}, 5*time.Minute, 50*time.Millisecond, "somebody goes on with job %s", id)
	c.Close()
	return time.Since(moment)
}

// recovered prints how long a job took to go on and to end. The table picks the line up.
func (w *world) recovered(what string, moment time.Time, on time.Duration) {
	w.t.Helper()
	w.t.Logf("RECOVERY %s: on after %.1f s, ended after %.1f s", what, on.Seconds(), time.Since(moment).Seconds())
}
