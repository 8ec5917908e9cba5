package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
)

func watchCommand(env Env) *cobra.Command {
	var (
		s   server
		out string
		g   gallery
	)
	c := &cobra.Command{
		Use:   "watch [ID...]",
		Short: "Follow jobs as they go, to their ends",
		Long: `Follow jobs to their ends, one after the other; without an ID, the one that was submitted last of those that are open. On a
terminal a bar moves; elsewhere each change is a line on standard error. With --out, what a job has made is written when it
is done. Ctrl-C stops the watching; the job goes on.

Progress comes as events (docs/events.md); where a server or a proxy lets none through, the status is asked for instead.

With --json each event is one line: {"event":"status","status":{...}}, {"event":"output","list":"images","output":{...}},
and at last {"event":"done","status":{...}}. Preview pictures are left out.`,
		Example: `  comfyd watch
  comfyd watch 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69 --out renders
  comfyd jobs --quiet --metadata comfyd_batch=5f0c7a1e-64a5-5f6b-8b0e-3c9d2a7b1e44 | xargs comfyd watch
  comfyd watch --json | jq -r 'select(.event == "status").status.progress.value'`,
		ValidArgsFunction: s.completeJobs(env, comfy.Running),
		RunE: func(c *cobra.Command, ids []string) error {
			if err := g.check(env, &s); err != nil {
				return err
			}
			screen := newScreen(env)
			api, err := s.client(env, screen)
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				open, err := api.List(c.Context(), client.ListOptions{State: comfy.Running, Limit: 1})
				if err != nil {
					return explain(err, nil)
				}
				if len(open.Jobs) == 0 {
					screen.say("no job is open")
					return nil
				}
				ids = []string{open.Jobs[0].ID}
			}
			return each(c.Context(), ids, func(ctx context.Context, id string) error {
				if !s.json && len(ids) > 1 {
					screen.say("%s", id)
				}
				f := &follower{env: env, server: &s, client: api, screen: screen, gallery: &g, out: out, events: s.json}
				return f.wait(ctx, id)
			})
		},
	}
	s.flags(c)
	g.flags(c)
	c.Flags().StringVarP(&out, "out", "o", "", "folder to write to; a file that exists is never replaced")
	return c
}

// several are the errors of several jobs. It says them all, and is the first, which decides the exit code.
type several []error

func (e several) Error() string { return errors.Join(e...).Error() }
func (e several) Unwrap() error { return e[0] }

// each calls f for all of them, unless it is interrupted.
func each(ctx context.Context, ids []string, f func(context.Context, string) error) error {
	var failed several
	for _, id := range ids {
		err := f(ctx, id)
		if errors.Is(err, errInterrupted) {
			return err
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	if failed == nil {
		return nil
	}
	return failed
}

// eventLine is what watch --json prints of one event, the end of a job included.
type eventLine struct {
	Event  client.EventKind `json:"event"`
	ID     string           `json:"id"`
	Status *client.Status   `json:"status,omitempty"`
	List   string           `json:"list,omitempty"`
	Output *client.Output   `json:"output,omitempty"`
	Text   *client.Text     `json:"text,omitempty"`
	Saved  []client.Saved   `json:"saved,omitempty"`
}
