// Package rollout speaks with Temporal about the versions of comfyd's workers: which there are, who gets the new jobs, which
// of them jobs still need. A job keeps to the version that has begun it.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

// pollerAge is how long ago a worker that is well may have asked for work last: a poll lasts a minute.
const pollerAge = 70 * time.Second

// Deployment is one worker deployment, of the name of COMFYD_DEPLOYMENT.
type Deployment struct {
	Client client.Client
	Name   string
}

// State of a version.
type State string

const (
	Current State = "current" // it gets the new jobs
	Ramping State = "ramping" // it gets a part of them
	Old     State = "old"     // it gets none, and keeps those that it has begun
)

// Version is one version of the workers.
type Version struct {
	BuildID string
	State   State
	Percent float32 // of a version that is ramping
	// Open is how many jobs are open that keep to it, as Temporal's lists have it.
	Open int64
	// Workers is how many have asked for work of late.
	Workers int
}

// Stranded tells whether there are jobs that nobody can go on with.
func (v Version) Stranded() bool { return v.Open > 0 && v.Workers == 0 }

// Status is a deployment as a whole.
type Status struct {
	Versions []Version // the newest first
	// Current is the build ID of the version that gets new jobs; empty where workers without a version do, whether there
	// are any or not.
	Current string
	// Chosen says that somebody has once chosen a current version; before, nobody has.
	Chosen bool
	// Unversioned is how many workers without a version have asked for work of late.
	Unversioned int
}

// ErrUnknown says that no worker of the deployment has ever asked for work.
var ErrUnknown = errors.New("no worker of this deployment has asked Temporal for work yet")

// Status asks Temporal how the deployment is.
func (d Deployment) Status(ctx context.Context) (*Status, error) {
	is, err := d.handle().Describe(ctx, client.WorkerDeploymentDescribeOptions{})
	var missing *serviceerror.NotFound
	if errors.As(err, &missing) {
		return nil, fmt.Errorf("deployment %s: %w", d.Name, ErrUnknown)
	}
	if err != nil {
		return nil, fmt.Errorf("reading deployment %s: %w", d.Name, err)
	}
	workers, err := d.workers(ctx)
	if err != nil {
		return nil, err
	}
	route := is.Info.RoutingConfig
	s := &Status{Chosen: !route.CurrentVersionChangedTime.IsZero(), Unversioned: workers[""]}
	if route.CurrentVersion != nil {
		s.Current = route.CurrentVersion.BuildID
	}
	summaries := is.Info.VersionSummaries
	slices.SortFunc(summaries, func(a, b client.WorkerDeploymentVersionSummary) int { return b.CreateTime.Compare(a.CreateTime) })
	for _, sum := range summaries {
		v := Version{BuildID: sum.Version.BuildID, State: Old, Workers: workers[sum.Version.BuildID]}
		switch {
		case v.BuildID == s.Current:
			v.State = Current
		case route.RampingVersion != nil && route.RampingVersion.BuildID == v.BuildID:
			v.State, v.Percent = Ramping, route.RampingVersionPercentage
		}
		if sum.DrainageStatus == client.WorkerDeploymentVersionDrainageStatusDrained { // until it is chosen again
			s.Versions = append(s.Versions, v)
			continue
		}
		n, err := d.Client.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: d.open(v.BuildID)})
		if err != nil {
			return nil, fmt.Errorf("counting the open jobs of version %s: %w", v.BuildID, err)
		}
		v.Open = n.GetCount()
		s.Versions = append(s.Versions, v)
	}
	return s, nil
}

// SetCurrent gives all new jobs to a version whose workers are there. Jobs that are open keep to theirs; those from before the
// deployment, which have none, go on with this one.
func (d Deployment) SetCurrent(ctx context.Context, buildID string) error {
	err := settled(ctx, func() error {
		_, err := d.handle().SetCurrentVersion(ctx, client.WorkerDeploymentSetCurrentVersionOptions{BuildID: buildID})
		return err
	})
	if err != nil {
		return fmt.Errorf("making version %s of deployment %s the current one: %w", buildID, d.Name, err)
	}
	return nil
}

// Ramp gives a part of the new jobs, in per cent, to a version; 0 ends that.
func (d Deployment) Ramp(ctx context.Context, buildID string, percent float32) error {
	err := settled(ctx, func() error {
		_, err := d.handle().SetRampingVersion(ctx, client.WorkerDeploymentSetRampingVersionOptions{BuildID: buildID, Percentage: percent})
		return err
	})
	if err != nil {
		return fmt.Errorf("giving %g %% of the new jobs to version %s of deployment %s: %w", percent, buildID, d.Name, err)
	}
	return nil
}

// settles is how long the task queues of workers that have just started may take to be known to Temporal.
const settles = 10 * time.Second

// settled does what a version is asked to take on. One whose workers have just started is refused for a moment, as lacking
// task queues that its workers poll already (seen: two seconds after their start); one that really lacks them is refused
// after all.
func settled(ctx context.Context, ask func() error) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := ask()
		var early *serviceerror.FailedPrecondition
		if err != nil && !(errors.As(err, &early) && strings.Contains(early.Message, "missing active task queues")) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(settles))
	return err
}

// Move has the open jobs of one version go on with another one, whose code must be able to: see `comfyd temporal replay`.
// It returns how many it has moved.
func (d Deployment) Move(ctx context.Context, from, to string) (moved int, err error) {
	change := client.WorkflowExecutionOptionsChanges{VersioningOverride: &client.VersioningOverrideChange{
		Value: &client.PinnedVersioningOverride{Version: worker.WorkerDeploymentVersion{DeploymentName: d.Name, BuildID: to}},
	}}
	for id, err := range visibility.Executions(ctx, d.Client, d.open(from)) {
		if err != nil {
			return moved, fmt.Errorf("listing the open jobs of version %s: %w", from, err)
		}
		_, err = d.Client.UpdateWorkflowExecutionOptions(ctx, client.UpdateWorkflowExecutionOptionsRequest{
			WorkflowId: id.GetWorkflowId(), RunId: id.GetRunId(), WorkflowExecutionOptionsChanges: change,
		})
		var ended *serviceerror.NotFound
		if errors.As(err, &ended) {
			continue
		}
		if err != nil {
			return moved, fmt.Errorf("moving job %s to version %s: %w", id.GetWorkflowId(), to, err)
		}
		moved++
	}
	return moved, nil
}

func (d Deployment) handle() client.WorkerDeploymentHandle {
	return d.Client.WorkerDeploymentClient().GetHandle(d.Name)
}

// open is the query for the jobs that keep to a version.
func (d Deployment) open(buildID string) string {
	return visibility.Jobs() + " AND " + visibility.Open() + " AND TemporalWorkerDeploymentVersion = " + visibility.Quote(d.Name+":"+buildID)
}

// workers counts those that have asked for workflows of late, by build ID; "" for those without a version.
func (d Deployment) workers(ctx context.Context) (map[string]int, error) {
	q, err := d.Client.DescribeTaskQueue(ctx, comfy.TaskQueue, enums.TASK_QUEUE_TYPE_WORKFLOW)
	if err != nil {
		return nil, fmt.Errorf("asking Temporal who serves the task queue %s: %w", comfy.TaskQueue, err)
	}
	n := map[string]int{}
	for _, p := range q.GetPollers() {
		o := p.GetDeploymentOptions()
		versioned := o.GetWorkerVersioningMode() == enums.WORKER_VERSIONING_MODE_VERSIONED
		switch {
		case time.Since(p.GetLastAccessTime().AsTime()) > pollerAge || versioned && o.GetDeploymentName() != d.Name:
		case versioned:
			n[o.GetBuildId()]++
		default:
			n[""]++
		}
	}
	return n, nil
}
