package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/config"
	"github.com/comfyd/comfyd/internal/logs"
	"github.com/comfyd/comfyd/internal/visibility"
	"github.com/comfyd/comfyd/workflows"
)

// Replay are the choices of [ReplayJobs].
type Replay struct {
	// Recent is how long ago a job may have ended; open ones always count.
	Recent time.Duration
	// Limit bounds the jobs that have ended; the newest come first. Open ones are all replayed.
	Limit int
	// Query is a list filter in place of both.
	Query string
	Out   io.Writer
	Log   logrus.FieldLogger
}

// ErrDiverges says that a job of the cluster would not go on with this build.
var ErrDiverges = errors.New("this build would not carry on as the jobs' histories say")

// ReplayJobs replays the open and the recent jobs, webhooks and sweeps of the cluster of TEMPORAL_ADDRESS on this build's code, each from
// its history, and changes nothing there. It fails with ErrDiverges when one does not fit.
func ReplayJobs(ctx context.Context, c *config.Config, r Replay) error {
	temporal, _, err := dial(ctx, c, r.Log)
	if err != nil {
		return err
	}
	defer temporal.Close()
	sealed, err := newCodec(c)
	if err != nil {
		return err
	}
	read := sealed.For(client.Options{})
	replayer, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{
		DataConverter: read.DataConverter, FailureConverter: read.FailureConverter,
	})
	if err != nil {
		return fmt.Errorf("preparing the replay: %w", err)
	}
	workflows.Register(replayer)
	silent := logrus.New() // each failure is told once, by us
	silent.SetOutput(io.Discard)
	ours := "WorkflowType IN (" + visibility.Quote(comfy.WorkflowName) + ", " + visibility.Quote(comfy.WebhookWorkflowName) + ", " + visibility.Quote(workflows.SweepName) + ")"
	type part struct {
		query string
		limit int
	}
	parts := []part{{r.Query, r.Limit}}
	if r.Query == "" {
		parts = []part{
			{ours + " AND " + visibility.Open(), 0},
			{ours + " AND CloseTime > " + visibility.Quote(time.Now().Add(-r.Recent).UTC().Format(time.RFC3339)), r.Limit},
		}
	}
	good, bad := 0, 0
	for _, part := range parts {
		n := 0
		for e, err := range visibility.Executions(ctx, temporal, part.query) {
			if err != nil {
				return fmt.Errorf("listing the jobs (%s): %w", part.query, err)
			}
			if n++; part.limit > 0 && n > part.limit {
				break
			}
			h, err := historyOf(ctx, temporal, e)
			var gone *serviceerror.NotFound
			if errors.As(err, &gone) {
				continue // since it was listed
			}
			if err != nil {
				return err
			}
			// What a job starts is named after it.
			original := worker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: e.GetWorkflowId(), RunID: e.GetRunId()}}
			if err := replayer.ReplayWorkflowHistoryWithOptions(logs.Temporal(silent), h, original); err != nil {
				bad++
				fmt.Fprintf(r.Out, "%s (run %s): %v\n", e.GetWorkflowId(), e.GetRunId(), err)
				continue
			}
			good++
		}
	}
	fmt.Fprintf(r.Out, "%d of %d histories replay on this build\n", good, good+bad)
	if bad > 0 {
		return ErrDiverges
	}
	return nil
}

// historyOf reads a whole history.
func historyOf(ctx context.Context, c client.Client, e *common.WorkflowExecution) (*history.History, error) {
	h := &history.History{}
	for it := c.GetWorkflowHistory(ctx, e.GetWorkflowId(), e.GetRunId(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
		event, err := it.Next()
		if err != nil {
			return nil, fmt.Errorf("reading the history of %s: %w", e.GetWorkflowId(), err)
		}
		h.Events = append(h.Events, event)
	}
	return h, nil
}
