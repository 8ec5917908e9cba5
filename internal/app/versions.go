package app

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/comfyd/comfyd/internal/config"
	"github.com/comfyd/comfyd/internal/rollout"
)

// versionsLook is how often Wait asks.
const versionsLook = 2 * time.Second

// versionsTimeout bounds one look.
const versionsTimeout = 30 * time.Second

// Versions is the worker deployment of COMFYD_DEPLOYMENT on the cluster of TEMPORAL_ADDRESS. Close it.
type Versions struct {
	rollout.Deployment
	Close func()
}

// OpenVersions connects to the cluster.
func OpenVersions(ctx context.Context, c *config.Config, log logrus.FieldLogger) (*Versions, error) {
	if c.Deployment == "" {
		return nil, &config.Error{Name: "COMFYD_DEPLOYMENT", Allowed: "name the deployment that the workers have, such as comfyd; where they have none, there are no versions to speak of"}
	}
	temporal, _, err := dial(ctx, c, log)
	if err != nil {
		return nil, err
	}
	return &Versions{Deployment: rollout.Deployment{Client: temporal, Name: c.Deployment}, Close: temporal.Close}, nil
}

// Print writes how the deployment is, a line for each version.
func (v *Versions) Print(ctx context.Context, out io.Writer) error {
	s, err := v.Status(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "BUILD ID\tNEW JOBS\tOPEN JOBS\tWORKERS\t\n")
	for _, one := range s.Versions {
		gets, note := "none", ""
		switch one.State {
		case rollout.Current:
			gets = "all others"
		case rollout.Ramping:
			gets = fmt.Sprintf("%g %%", one.Percent)
		case rollout.Old:
			if note = "may be stopped"; one.Open > 0 {
				note = "its jobs need it"
			}
		}
		if one.Stranded() {
			note = "ITS JOBS STAND STILL"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", one.BuildID, gets, one.Open, one.Workers, note)
	}
	if s.Unversioned > 0 {
		fmt.Fprintf(w, "(workers without a version)\t\t\t%d\t\n", s.Unversioned)
	}
	if s.Current == "" {
		fmt.Fprintf(w, "NO VERSION IS CURRENT: new jobs wait for workers without a version\n")
	}
	return w.Flush()
}

// Wait returns nil when no open job keeps to a version any more, so that its workers may be stopped. It looks once at least,
// and gives up when the limit is over.
func (v *Versions) Wait(ctx context.Context, buildID string, limit time.Duration, out io.Writer) error {
	over := time.After(limit)
	look := time.NewTicker(versionsLook)
	defer look.Stop()
	for said := int64(-1); ; {
		one, err := v.find(ctx, buildID)
		switch {
		case err != nil:
			return err
		case one.State != rollout.Old:
			return fmt.Errorf("version %s is %s: it goes on getting new jobs, so make another one current first", buildID, one.State)
		case one.Open == 0:
			fmt.Fprintf(out, "no open job keeps to version %s: its workers may be stopped\n", buildID)
			return nil
		case one.Open != said:
			fmt.Fprintf(out, "%d open jobs keep to version %s, which has %d workers\n", one.Open, buildID, one.Workers)
		}
		said = one.Open
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			return fmt.Errorf("%d open jobs keep to version %s still", one.Open, buildID)
		case <-look.C:
		}
	}
}

// MoveToCurrent has the open jobs of a version go on with the current one.
func (v *Versions) MoveToCurrent(ctx context.Context, buildID string, out io.Writer) error {
	s, err := v.Status(ctx)
	if err != nil {
		return err
	}
	if s.Current == "" || s.Current == buildID {
		return fmt.Errorf("choose another current version first: comfyd temporal versions current BUILD_ID")
	}
	n, err := v.Move(ctx, buildID, s.Current)
	fmt.Fprintf(out, "%d open jobs go on with version %s\n", n, s.Current)
	return err
}

// find asks Temporal about one version.
func (v *Versions) find(ctx context.Context, buildID string) (rollout.Version, error) {
	ctx, done := context.WithTimeout(ctx, versionsTimeout)
	defer done()
	s, err := v.Status(ctx)
	if err != nil {
		return rollout.Version{}, err
	}
	for _, one := range s.Versions {
		if one.BuildID == buildID {
			return one, nil
		}
	}
	return rollout.Version{}, fmt.Errorf("no worker of version %q has asked Temporal for work yet; comfyd temporal versions lists those that have", buildID)
}
