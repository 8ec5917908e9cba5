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

// registerSweep lets w do the work of a sweep of the store.
func registerSweep(w worker.Worker, o Options) {
	s := activities.NewSweeper(activities.SweepOptions{
		Temporal: o.Client, Namespace: o.Sweep.Namespace, Store: o.Sweep.Store, Start: o.Limits.Start, Log: o.Log,
		Catalogs: func(ctx context.Context) (map[string]bool, error) { return catalog.Named(ctx, o.Sweep.Store) },
		Tell:     tell(o.Client, o.Converter),
	})
	register(w, activities.SweepName, s.Sweep)
}

// scheduleSweep makes the schedule, or brings one of an earlier version up to date; whether it is paused stays as it is.
// Without it a worker works all the same.
func scheduleSweep(c client.Client, log logrus.FieldLogger) {
	ctx, done := context.WithTimeout(context.Background(), scheduleTimeout)
	defer done()
	spec := client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: sweepEvery}}}
	// A sweep that was missed is made up for by the next.
	policy := client.SchedulePolicies{Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: time.Minute}
	action := &client.ScheduleWorkflowAction{ID: SweepSchedule, Workflow: workflows.SweepName, TaskQueue: comfy.TaskQueue}
	_, err := c.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: SweepSchedule, Spec: spec, Overlap: policy.Overlap, CatchupWindow: policy.CatchupWindow, Action: action,
	})
	if errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		err = c.ScheduleClient().GetHandle(ctx, SweepSchedule).Update(ctx, client.ScheduleUpdateOptions{
			DoUpdate: func(is client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
				return &client.ScheduleUpdate{Schedule: &client.Schedule{
					Spec: &spec, Policy: &policy, Action: action, State: is.Description.Schedule.State,
				}}, nil
			},
		})
	}
	if err != nil {
		log.WithError(fmt.Errorf("making the schedule %s: %w", SweepSchedule, err)).
			Warn("where there is no such schedule, nothing removes old outputs from the store until a worker starts that can make it")
	}
}
