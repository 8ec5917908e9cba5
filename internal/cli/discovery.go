package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/client"
)

func modelsCommand(env Env) *cobra.Command {
	var s server
	c := &cobra.Command{
		Use:   "models [FOLDER]",
		Short: "List the model files that the backends have",
		Long: `List the model files that the backends have, by folder of ComfyUI's models/, each with the pools that have it: what ComfyUI's
own loaders offer. One more is downloaded to the Volume at Modal by: comfyd models add.`,
		Example: `  comfyd models
  comfyd models checkpoints
  comfyd models --json | jq '.loras[].name'`,
		Args:              atMostOne("folder"),
		ValidArgsFunction: s.completeFolders(env),
		RunE: func(c *cobra.Command, args []string) error {
			screen := newScreen(env)
			api, err := s.client(env, screen)
			if err != nil {
				return err
			}
			var all map[string][]client.Offer
			if len(args) == 1 {
				models, err := api.ModelsIn(c.Context(), args[0])
				if err != nil {
					return explain(err, nil)
				}
				all = map[string][]client.Offer{args[0]: models}
			} else if all, err = api.Models(c.Context()); err != nil {
				return explain(err, nil)
			}
			if s.json {
				return printJSON(env.Out, all)
			}
			found := 0
			for _, folder := range slices.Sorted(maps.Keys(all)) {
				if err := printOffers(env.Out, folder+"/", all[folder]); err != nil {
					return err
				}
				found += len(all[folder])
			}
			if found == 0 {
				screen.say("no backend has any")
			}
			return nil
		},
	}
	s.flags(c)
	return c
}

func nodesCommand(env Env) *cobra.Command {
	var s server
	c := &cobra.Command{
		Use:   "nodes [CLASS]",
		Short: "List the node classes that the backends have, or show one",
		Long: `List the node classes that the backends have, each with the pools that have it; with a class, show what it takes and gives, as
ComfyUI's /object_info does.`,
		Example: `  comfyd nodes | grep -i upscale
  comfyd nodes KSampler | jq .input.required`,
		Args:              atMostOne("node class"),
		ValidArgsFunction: s.completeClasses(env),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := s.client(env, newScreen(env))
			if err != nil {
				return err
			}
			if len(args) == 1 {
				n, err := api.Node(c.Context(), args[0])
				switch {
				case err != nil:
					return explain(err, nil)
				case s.json:
					return printJSON(env.Out, n)
				}
				text, err := json.MarshalIndent(n.Definition, "", "  ")
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(env.Out, printable(string(text)))
				return err
			}
			all, err := api.Nodes(c.Context())
			switch {
			case err != nil:
				return explain(err, nil)
			case s.json:
				return printJSON(env.Out, all)
			}
			return printOffers(env.Out, "", all)
		},
	}
	s.flags(c)
	return c
}

func printOffers(out io.Writer, folder string, all []client.Offer) error {
	var b strings.Builder
	for _, o := range all {
		fmt.Fprintf(&b, "%s\t%s\n", printable(folder+o.Name), printable(strings.Join(o.Pools, ",")))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// atMostOne is cobra.MaximumNArgs(1) with a name for what is too many.
func atMostOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("give one %s, or none; see '%s --help'", what, c.CommandPath())
		}
		return nil
	}
}
