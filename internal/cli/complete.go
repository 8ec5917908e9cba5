package cli

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
)

// completeTime is how long a person who presses Tab may be kept waiting.
const completeTime = 2 * time.Second

// completer asks the server for what begins with what was typed. It says nothing of what goes wrong.
func (s *server) completer(env Env, ask func(context.Context, *client.Client, []string) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, done := context.WithTimeout(c.Context(), completeTime)
		defer done()
		api, err := s.client(env, newScreen(env), client.WithRetryFor(0))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, err := ask(ctx, api, args)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all = slices.DeleteFunc(all, func(x cobra.Completion) bool { return !strings.HasPrefix(x, typed) })
		return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

// completeJobs completes IDs of the newest jobs in a state, or in any.
func (s *server) completeJobs(env Env, state comfy.State) cobra.CompletionFunc {
	return s.completer(env, func(ctx context.Context, api *client.Client, args []string) (all []cobra.Completion, err error) {
		page, err := api.List(ctx, client.ListOptions{State: state})
		for _, j := range page.Jobs {
			if !slices.Contains(args, j.ID) {
				text := strings.ToLower(jobState(j)) + ", " + j.CreatedAt.Local().Format(time.DateTime)
				if l := labels(j.Metadata); l != "" {
					text += ", " + l
				}
				all = append(all, cobra.CompletionWithDesc(printable(j.ID), printable(text)))
			}
		}
		return all, err
	})
}

// completeOneJob is completeJobs for commands that take a single one.
func (s *server) completeOneJob(env Env, state comfy.State) cobra.CompletionFunc {
	return single(s.completeJobs(env, state))
}

func (s *server) completeFolders(env Env) cobra.CompletionFunc {
	return single(s.completer(env, func(ctx context.Context, api *client.Client, _ []string) ([]cobra.Completion, error) {
		all, err := api.Models(ctx)
		return slices.Sorted(maps.Keys(all)), err
	}))
}

func (s *server) completeClasses(env Env) cobra.CompletionFunc {
	return single(s.completer(env, func(ctx context.Context, api *client.Client, _ []string) (all []cobra.Completion, err error) {
		classes, err := api.Nodes(ctx)
		for _, o := range classes {
			all = append(all, printable(o.Name))
		}
		return all, err
	}))
}

// single completes the first argument alone.
func single(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(c, args, typed)
	}
}

// completeFiles completes the names of files with one of these ends.
func completeFiles(ends ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(ends, cobra.ShellCompDirectiveFilterFileExt)
}

// completeFlag completes a flag's value. That the flag exists is the caller's word.
func completeFlag(c *cobra.Command, flag string, values ...cobra.Completion) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // no such flag, or twice: seen by every test of the command
	}
}
