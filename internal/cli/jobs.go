package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
)

// listing are the flags of jobs.
type listing struct {
	server
	status, code, backend string
	since, until          string
	metadata              []string
	limit                 int
	all, quiet            bool
}

func jobsCommand(env Env) *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use:   "jobs",
		Short: "List jobs",
		Long: `List the key's own jobs: open ones first, the newest first, then those that have ended, the last end first. The filters are the
server's, and go together.`,
		Example: `  comfyd jobs
  comfyd jobs --status failed --since 1d
  comfyd jobs --metadata shot=7 --metadata artist=ann --all
  comfyd jobs --json | jq -r '.jobs[] | select(.code == "out_of_memory").id'
  comfyd jobs --quiet --status running | xargs -n1 comfyd cancel`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("jobs takes filters, no %q; one job is shown by: comfyd status %s", args[0], args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return l.run(c.Context(), env) },
	}
	l.flags(c)
	f := c.Flags()
	f.StringVar(&l.status, "status", "", "running, completed or failed")
	f.StringVar(&l.code, "code", "", "why a job has failed, such as node_failed or out_of_memory")
	f.StringVar(&l.backend, "backend", "", "the pool that a job was given to")
	f.StringArrayVar(&l.metadata, "metadata", nil, "KEY=VALUE: a label that a job must have (repeatable: all of them)")
	f.StringVar(&l.since, "since", "", "submitted from then on: 90m, 12h, 7d ago; 2026-01-31, or 2026-01-31T18:30:00Z")
	f.StringVar(&l.until, "until", "", "submitted before then, in the same forms")
	f.IntVar(&l.limit, "limit", 20, "how many to list")
	f.BoolVar(&l.all, "all", false, "list all of them")
	f.BoolVarP(&l.quiet, "quiet", "q", false, "print IDs alone, one a line")
	completeFlag(c, "status", "running", "completed", "failed")
	completeFlag(c, "code", codes()...)
	return c
}

func codes() (all []string) {
	for _, c := range []comfy.Code{
		comfy.InvalidWorkflow, comfy.NodeFailed, comfy.OutOfMemory, comfy.Timeout, comfy.Canceled, comfy.BackendLost,
		comfy.BackendUnavailable, comfy.OutputLost, comfy.Storage, comfy.Internal,
	} {
		all = append(all, string(c))
	}
	return all
}

// maxPage is the largest page that the API gives.
const maxPage = 100

func (l *listing) run(ctx context.Context, env Env) error {
	o, err := l.options(time.Now())
	if err != nil {
		return err
	}
	screen := newScreen(env)
	api, err := l.client(env, screen)
	if err != nil {
		return err
	}
	list := client.JobList{Jobs: []client.ListedJob{}}
	for {
		o.Limit = maxPage
		if !l.all {
			o.Limit = min(maxPage, l.limit-len(list.Jobs))
		}
		page, err := api.List(ctx, o)
		if err != nil {
			return explain(err, nil)
		}
		list.Jobs = append(list.Jobs, page.Jobs...)
		list.Cursor, o.Cursor = page.Cursor, page.Cursor
		if page.Cursor == "" || !l.all && len(list.Jobs) >= l.limit {
			break
		}
	}
	switch {
	case l.json:
		return printJSON(env.Out, list)
	case l.quiet:
		for _, j := range list.Jobs {
			if _, err := fmt.Fprintln(env.Out, printable(j.ID)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := printJobs(env.Out, list.Jobs); err != nil {
		return err
	}
	switch {
	case len(list.Jobs) == 0:
		screen.say("no such jobs")
	case list.Cursor != "":
		screen.say("there may be more: --limit %d, or --all", 5*len(list.Jobs))
	}
	return nil
}

func (l *listing) options(now time.Time) (o client.ListOptions, err error) {
	if l.limit < 1 {
		return o, usagef("--limit %d: list one job or more", l.limit)
	}
	o = client.ListOptions{State: comfy.State(strings.ToUpper(l.status)), Code: comfy.Code(l.code), Backend: l.backend}
	if o.Metadata, err = pairs(l.metadata); err != nil {
		return o, err
	}
	if o.Since, err = moment("--since", l.since, now); err != nil {
		return o, err
	}
	o.Until, err = moment("--until", l.until, now)
	return o, err
}

// moment reads a time, or how long ago it was.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, form := range []string{time.DateOnly, time.DateTime, time.RFC3339} {
		if at, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usagef("%s %q: use 90m, 12h or 7d for how long ago, or a date such as 2026-01-31 or 2026-01-31T18:30:00Z", flag, text)
}

// printJobs prints a table.
func printJobs(out io.Writer, jobs []client.ListedJob) error {
	if len(jobs) == 0 {
		return nil
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	cells := func(all ...string) {
		for i := range all {
			all[i] = printable(strings.ReplaceAll(first(all[i], "-"), "\n", " "))
		}
		_, _ = fmt.Fprintln(w, strings.Join(all, "\t"))
	}
	cells("ID", "STATUS", "SUBMITTED", "TOOK", "BACKEND", "LABELS")
	for _, j := range jobs {
		took := ""
		if j.EndedAt != nil {
			took = j.EndedAt.Sub(j.CreatedAt).Round(100 * time.Millisecond).String()
		}
		cells(j.ID, jobState(j), j.CreatedAt.Local().Format(time.DateTime), took, j.Backend, short(labels(j.Metadata), 60))
	}
	_ = w.Flush() // to memory
	_, err := io.WriteString(out, text.String())
	return err
}

// jobState is the state, and of a failed job the reason.
func jobState(j client.ListedJob) string {
	return strings.TrimSpace(string(j.State) + " " + string(j.Code))
}

func labels(m map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+m[k])
	}
	return strings.Join(all, " ")
}

func deleteCommand(env Env) *cobra.Command {
	var s server
	c := &cobra.Command{
		Use:   "delete ID",
		Short: "Forget a job and what it has made",
		Long: `Have the server forget a job, with its outputs and the inputs that no other job uses. An open job is canceled first, and this
waits for its end.`,
		Example:           `  comfyd delete 0198c7d2-6c1b-7e2f-9a51-0d8f3c4b5a69`,
		Args:              one("job id"),
		ValidArgsFunction: s.completeOneJob(env, ""),
		RunE: func(c *cobra.Command, args []string) error {
			screen := newScreen(env)
			api, err := s.client(env, screen)
			if err != nil {
				return err
			}
			for deleted := false; !deleted; { // each call holds until the job has ended, or for some seconds
				if deleted, err = api.Delete(c.Context(), args[0]); err != nil {
					return explain(err, nil)
				}
				if !deleted {
					screen.say("%s is being canceled", args[0])
				}
			}
			if s.json {
				return printJSON(env.Out, map[string]any{"id": args[0], "deleted": true})
			}
			_, err = fmt.Fprintf(env.Out, "%s is deleted\n", printable(args[0]))
			return err
		},
	}
	s.flags(c)
	return c
}
