package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
	"github.com/comfyd/comfyd/internal/removal"
	"github.com/comfyd/comfyd/workflows"
)

const (
	// SweepSchedule is the ID of the schedule that sweeps the store; there is one for all workers.
	SweepSchedule = "comfyd-sweep"
	sweepEvery    = time.Hour
	// scheduleTimeout bounds the making of the schedule.
	scheduleTimeout = 10 * time.Second
)

// Blobs is what a sweep needs of the blob store.
type Blobs interface {
	removal.Store
	catalog.Blobs
}

// SweepOptions of a worker.
type SweepOptions struct {
	Namespace string // Temporal's
	Store     Blobs
}

// registerSweep lets w sweep the store.
func registerSweep(w worker.Worker, o Options) {
	s := activities.NewSweeper(activities.SweepOptions{
		Temporal: o.Client, Namespace: o.Sweep.Namespace, Store: o.Sweep.Store, Start: o.Limits.Start, Log: o.Log,
		Catalogs: func(ctx context.Context) (map[string]bool, error) { return catalog.Named(ctx, o.Sweep.Store) },
	})
	w.RegisterWorkflowWithOptions(workflows.Sweep, workflow.RegisterOptions{Name: workflows.SweepName})
	register(w, activities.SweepName, s.Sweep)
}

// scheduleSweep makes the schedule where there is none. Without it a worker works all the same.
func scheduleSweep(c client.Client, log logrus.FieldLogger) {
	ctx, done := context.WithTimeout(context.Background(), scheduleTimeout)
	defer done()
	_, err := c.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID:      SweepSchedule,
		Spec:    client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: sweepEvery}}},
		Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP,
		// One that was missed is made up for by the next.
		CatchupWindow: time.Minute,
		Action:        &client.ScheduleWorkflowAction{ID: SweepSchedule, Workflow: workflows.SweepName, TaskQueue: comfy.TaskQueue},
	})
	if err != nil && !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		log.WithError(fmt.Errorf("making the schedule %s: %w", SweepSchedule, err)).
			Warn("nothing removes old outputs from the store until a worker starts that can")
	}
}
