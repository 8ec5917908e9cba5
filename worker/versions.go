package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
	"go.temporal.io/sdk/worker"

	"github.com/comfyd/comfyd/internal/catalog"
	"github.com/comfyd/comfyd/internal/rollout"
)

const (
	// versionsSoon and versionsEvery are how often a worker with a version looks at its deployment: until it has seen it
	// once, and from then on.
	versionsSoon  = time.Second
	versionsEvery = 15 * time.Second
	// versionsTimeout bounds one look.
	versionsTimeout = 20 * time.Second
)

// Deployment names this worker among the versions of a worker deployment. Zero: it has no version, and takes all jobs.
type Deployment struct{ Name, BuildID string }

func (d Deployment) options() worker.DeploymentOptions {
	if d.Name == "" {
		return worker.DeploymentOptions{}
	}
	return worker.DeploymentOptions{
		UseVersioning: true, Version: worker.WorkerDeploymentVersion{DeploymentName: d.Name, BuildID: d.BuildID},
	}
}

// versions watches over the worker's deployment, because Temporal keeps silent about its two traps: where no version is the
// current one new jobs are accepted and never begin, and where the last worker of a version is gone its open jobs stand still.
type versions struct {
	deployment rollout.Deployment
	buildID    string
	publisher  *catalog.Publisher
	log        logrus.FieldLogger
	cancel     context.CancelFunc
	gone       chan struct{}
	said       string // the last warning; each is given once
}

// newVersions returns nil for a worker without a version.
func newVersions(o Options) *versions {
	if o.Deployment.Name == "" {
		return nil
	}
	return &versions{
		deployment: rollout.Deployment{Client: o.Client, Name: o.Deployment.Name}, buildID: o.Deployment.BuildID,
		publisher: o.Publisher, log: o.Log.WithFields(logrus.Fields{"deployment": o.Deployment.Name, "build": o.Deployment.BuildID}),
	}
}

func (v *versions) start() {
	if v == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	v.cancel, v.gone = cancel, make(chan struct{})
	go func() {
		defer close(v.gone)
		next := time.NewTimer(versionsSoon)
		defer next.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-next.C:
			}
			pause := versionsEvery
			if err := v.look(ctx); err != nil {
				pause = versionsSoon
				v.log.WithError(err).Debug("cannot look at the versions of the workers")
			}
			next.Reset(pause)
		}
	}()
}

func (v *versions) stop() {
	if v != nil && v.cancel != nil {
		v.cancel()
		<-v.gone
	}
}

// look makes the first version of a deployment the current one, and warns of what is wrong.
func (v *versions) look(ctx context.Context) error {
	ctx, done := context.WithTimeout(ctx, versionsTimeout)
	defer done()
	s, err := v.deployment.Status(ctx)
	if err != nil {
		return err
	}
	if !s.Chosen { // nobody has had a reason to choose, and without a current version no job would begin
		if err := v.deployment.SetCurrent(ctx, v.buildID); err != nil {
			return err
		}
		v.log.Info("this is the first version of the deployment: it gets the new jobs")
		s.Current = v.buildID
	}
	halted := ""
	if s.Current == "" && s.Unversioned == 0 {
		halted = fmt.Sprintf("no version of the deployment %s is the current one: jobs are accepted, and do not begin. Choose one: comfyd temporal versions current BUILD_ID", v.deployment.Name)
	}
	v.publisher.Halt(halted)
	warning := halted
	for _, version := range s.Versions {
		if version.Stranded() {
			warning = fmt.Sprintf("%d open jobs keep to version %s, and no worker of that version is there: they stand still. Start one, or let them go on with the current version: comfyd temporal versions move %s", version.Open, version.BuildID, version.BuildID)
		}
	}
	if warning != v.said && warning != "" {
		v.log.Error(warning)
	}
	v.said = warning
	return nil
}
