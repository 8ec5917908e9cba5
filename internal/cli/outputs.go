package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
)

func outputsCommand(env Env) *cobra.Command {
	var (
		s    server
		out  string
		list bool
		g    gallery
	)
	c := &cobra.Command{
		Use:   "outputs ID...",
		Short: "Get what jobs have made",
		Long: `Write the images, files and texts of completed jobs. A file appears under its name only when it is whole and its SHA-256 is the
one that the server announced; what arrives broken is fetched once more. A file that exists is never replaced, the new
one gets a number. The paths go to standard output, one a line. A job that has not ended, or has failed, is an error.`,
		Example: `  comfyd outputs 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69
  comfyd outputs 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69 -o renders
  comfyd outputs 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69 --list
  comfyd jobs --quiet --status completed --since 1d | xargs comfyd outputs -o yesterday`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("give the id of one job or more; see '%s --help'", c.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: s.completeJobs(env, comfy.Completed),
		RunE: func(c *cobra.Command, ids []string) error {
			if err := g.check(env, &s); err != nil {
				return err
			}
			screen := newScreen(env)
			api, err := s.client(env, screen)
			if err != nil {
				return err
			}
			f := &follower{env: env, server: &s, client: api, screen: screen, gallery: &g, out: out, pathsOnly: true}
			if list {
				f.out, f.pathsOnly = "", false
			}
			return each(c.Context(), ids, func(ctx context.Context, id string) error {
				st, err := api.Status(ctx, id, client.StatusOptions{OutputURL: true})
				switch {
				case err != nil:
					return explain(err, nil)
				case !st.Ended():
					return fmt.Errorf("job %s has not ended: %s; to wait for it: comfyd watch %s --out %q", st.ID, describe(st, nil), st.ID, out)
				}
				return f.finish(ctx, st)
			})
		},
	}
	s.flags(c)
	g.flags(c)
	c.Flags().StringVarP(&out, "out", "o", ".", "folder to write to")
	c.Flags().BoolVar(&list, "list", false, "say what there is, and write nothing")
	return c
}
