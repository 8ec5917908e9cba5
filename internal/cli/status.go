package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
)

func statusCommand(env Env) *cobra.Command {
	var (
		s    server
		out  string
		wait bool
		g    gallery
	)
	c := &cobra.Command{
		Use:   "status ID",
		Short: "Show how a job is, wait for it, or get what it has made",
		Long: `Show how a job is. With --wait, show its progress until it ends; with --out, write what it has made. A job that has
failed is an error, with its reason.`,
		Example: `  comfyd status 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69
  comfyd status 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69 --wait --out renders
  comfyd status 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69 --json | jq .progress`,
		Args:              one("job id"),
		ValidArgsFunction: s.completeOneJob(env, ""),
		RunE: func(c *cobra.Command, args []string) error {
			if err := g.check(env, &s); err != nil {
				return err
			}
			screen := newScreen(env)
			api, err := s.client(env, screen)
			if err != nil {
				return err
			}
			f := &follower{env: env, server: &s, client: api, screen: screen, gallery: &g, out: out}
			if wait {
				return f.wait(c.Context(), args[0])
			}
			st, err := api.Status(c.Context(), args[0], client.StatusOptions{OutputURL: true})
			if err != nil {
				return explain(err, nil)
			}
			return f.finish(c.Context(), st)
		},
	}
	s.flags(c)
	g.flags(c)
	c.Flags().BoolVar(&wait, "wait", false, "wait until the job has ended")
	c.Flags().StringVarP(&out, "out", "o", "", "folder to write the files of a completed job to; a file that exists is never replaced")
	return c
}

func cancelCommand(env Env) *cobra.Command {
	var s server
	c := &cobra.Command{
		Use:   "cancel ID",
		Short: "Stop a job",
		Long: `Ask that a job be stopped. One that waits leaves its queue; one that runs is interrupted, which may take a moment; one
that has ended stays as it was, and that is told.`,
		Example:           `  comfyd cancel 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69`,
		Args:              one("job id"),
		ValidArgsFunction: s.completeOneJob(env, comfy.Running),
		RunE: func(c *cobra.Command, args []string) error {
			screen := newScreen(env)
			api, err := s.client(env, screen)
			if err != nil {
				return err
			}
			st, err := api.Cancel(c.Context(), args[0])
			switch {
			case err != nil:
				return explain(err, nil)
			case s.json:
				return printJSON(env.Out, withoutData(st))
			case st.Ended():
				_, err = fmt.Fprintf(env.Out, "%s had ended: %s\n", st.ID, st.State)
			default:
				_, err = fmt.Fprintf(env.Out, "%s is being canceled\n", st.ID)
			}
			return err
		},
	}
	s.flags(c)
	return c
}
