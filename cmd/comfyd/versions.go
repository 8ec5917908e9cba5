package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/internal/app"
	"github.com/comfyd/comfyd/internal/cli"
	"github.com/comfyd/comfyd/internal/config"
)

// versionsTimeout bounds a command about versions that waits for nothing.
const versionsTimeout = time.Minute

const versionsHelp = `The versions of the workers of COMFYD_DEPLOYMENT on the cluster of TEMPORAL_ADDRESS: who gets new jobs, which of them open jobs
keep to, how many workers are there. A job keeps to the version that has begun it, so its workers are needed until it has
ended. See docs/operations.md, "Rolling deploys".`

// versionsCommand is `comfyd temporal versions`.
func versionsCommand() *cobra.Command {
	all := &cobra.Command{
		Use: "versions", Short: "Show the versions of the workers, and choose which gets the new jobs", Long: versionsHelp, Args: cobra.NoArgs,
		RunE: withVersions(func(ctx context.Context, cmd *cobra.Command, v *app.Versions, _ []string) error {
			return v.Print(ctx, cmd.OutOrStdout())
		}),
	}
	var limit time.Duration
	wait := &cobra.Command{
		Use: "wait BUILD_ID", Short: "Wait until no open job keeps to a version, so that its workers may be stopped", Args: cobra.ExactArgs(1),
		RunE: withVersions(func(_ context.Context, cmd *cobra.Command, v *app.Versions, args []string) error {
			return v.Wait(cmd.Context(), args[0], limit, cmd.OutOrStdout())
		}),
	}
	wait.Flags().DurationVar(&limit, "timeout", 26*time.Hour, "give up with exit code 1 after this time; 0s looks once")
	all.AddCommand(wait,
		&cobra.Command{
			Use: "current BUILD_ID", Short: "Give all new jobs to a version", Args: cobra.ExactArgs(1),
			RunE: withVersions(func(ctx context.Context, cmd *cobra.Command, v *app.Versions, args []string) error {
				if err := v.SetCurrent(ctx, args[0]); err != nil {
					return err
				}
				return v.Print(ctx, cmd.OutOrStdout())
			}),
		},
		&cobra.Command{
			Use: "ramp BUILD_ID PERCENT", Short: "Give a part of the new jobs to a version; 0 ends that", Args: cobra.ExactArgs(2),
			RunE: withVersions(func(ctx context.Context, cmd *cobra.Command, v *app.Versions, args []string) error {
				percent, err := strconv.ParseFloat(args[1], 32)
				if err != nil || percent < 0 || percent > 100 {
					return cli.Usage(fmt.Errorf("PERCENT %q: a number from 0 to 100", args[1]))
				}
				if err := v.Ramp(ctx, args[0], float32(percent)); err != nil {
					return err
				}
				return v.Print(ctx, cmd.OutOrStdout())
			}),
		},
		&cobra.Command{
			Use: "move BUILD_ID", Short: "Have the open jobs of a version go on with the current one (try `comfyd temporal replay` first)", Args: cobra.ExactArgs(1),
			RunE: withVersions(func(ctx context.Context, cmd *cobra.Command, v *app.Versions, args []string) error {
				return v.MoveToCurrent(ctx, args[0], cmd.OutOrStdout())
			}),
		})
	return all
}

func withVersions(f func(context.Context, *cobra.Command, *app.Versions, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := config.ReadTemporal()
		if err != nil {
			return err
		}
		ctx, done := context.WithTimeout(cmd.Context(), versionsTimeout)
		defer done()
		v, err := app.OpenVersions(ctx, c, quiet(c))
		if err != nil {
			return err
		}
		defer v.Close()
		return f(ctx, cmd, v, args)
	}
}

const replayHelp = `Replays the open jobs of the cluster of TEMPORAL_ADDRESS, and those that have ended lately, from their histories on the code of
this build, and changes nothing there. Run it with the new build before a rollout: a job that does not replay would stand still
under it. Not for jobs whose payloads are encrypted with a key that this host does not have.

Exit codes:
  0  all fit
  1  one does not, or the cluster could not be read`

// replayCommand is `comfyd temporal replay`.
func replayCommand() *cobra.Command {
	var r app.Replay
	c := &cobra.Command{
		Use: "replay", Short: "Try the open and recent jobs of a cluster on this build, before a rollout", Long: replayHelp, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.ReadTemporalPayloads()
			if err != nil {
				return err
			}
			r.Out, r.Log = cmd.OutOrStdout(), quiet(c)
			return app.ReplayJobs(cmd.Context(), c, r)
		},
	}
	c.Flags().DurationVar(&r.Recent, "recent", 24*time.Hour, "how long ago a job may have ended")
	c.Flags().IntVar(&r.Limit, "limit", 1000, "how many jobs that have ended are replayed, the newest first; open ones all are (0: no limit)")
	c.Flags().StringVar(&r.Query, "query", "", "a list filter of Temporal in place of both, such as \"WorkflowId = '...'\"")
	return c
}
