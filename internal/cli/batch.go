package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func batchCommand(env Env) *cobra.Command {
	var s submission
	c := &cobra.Command{
		Use:   "batch FILE|- VARIATIONS|-",
		Short: "Run a workflow several times, each time with other values",
		Long: `Submit up to 100 jobs of one workflow at once, all or none, wait for them, and write what they make. VARIATIONS is a file with
one JSON object for each job, which says what that job changes, by "<node>.<input>": a list of them, or one a line.

  {"6.text": "a cat in the snow", "3.seed": 1}
  {"6.text": "a dog in the snow", "3.seed": 2}

Either file may be - for standard input. The workflow is taken in ComfyUI's API format (menu "Export (API)"). For the same
workflow with other seeds alone: comfyd submit --seeds. The files that the workflow, or a variation, names are uploaded as
comfyd submit does; the paths of what was written go to standard output, one a line.`,
		Example: `  comfyd batch workflow.json prompts.json --out renders
  jq -cR '{"6.text": .}' prompts.txt | comfyd batch workflow.json - --out renders
  comfyd batch workflow.json prompts.json --no-wait --metadata show=autumn`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("give a workflow file and a file of variations; see '%s --help'", c.CommandPath())
			}
			if args[0] == "-" && args[1] == "-" {
				return usagef("only one of the two files can be standard input")
			}
			return nil
		},
		ValidArgsFunction: completeFiles("json", "jsonl"),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if s.variations, err = readVariations(env.In, args[1]); err != nil {
				return err
			}
			return s.run(c.Context(), env, args[0])
		},
	}
	s.common(c)
	return c
}

// variation is what one job of a batch changes, by "<node>.<input>".
type variation map[string]json.RawMessage

// String is one line.
func (v variation) String() string {
	var all []string
	for _, at := range slices.Sorted(maps.Keys(v)) {
		all = append(all, at+" = "+short(string(v[at]), 60))
	}
	return strings.Join(all, ", ")
}

// readVariations reads a list of objects, or objects one after the other.
func readVariations(in io.Reader, name string) ([]variation, error) {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(in)
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, usagef("cannot read the variations: %w", err)
	}
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\ufeff"))) // some editors on Windows
	var all []variation
	if bytes.HasPrefix(text, []byte("[")) {
		err = json.Unmarshal(text, &all)
	} else {
		for d := json.NewDecoder(bytes.NewReader(text)); err == nil; {
			var v variation
			if err = d.Decode(&v); err == nil {
				all = append(all, v)
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	switch {
	case err != nil:
		return nil, usagef("the variations in %s are no JSON objects, such as {\"6.text\": \"a cat\"}: %w", name, err)
	case len(all) == 0:
		return nil, usagef("%s has no variations", name)
	}
	for i, v := range all {
		if v == nil {
			return nil, usagef("variation %d in %s is no JSON object, such as {\"6.text\": \"a cat\"}", i, name)
		}
	}
	return all, nil
}

// changes are variations as the client takes them; their numbers keep their digits.
func changes(all []variation) []map[string]any {
	var list []map[string]any
	for _, v := range all {
		change := map[string]any{}
		for at, value := range v {
			change[at] = value
		}
		list = append(list, change)
	}
	return list
}

// with is the graph and what variations put into it, for what they name.
func (g graph) with(all []variation) graph {
	if len(all) == 0 {
		return g
	}
	both := maps.Clone(g)
	if both == nil {
		both = graph{}
	}
	for i, v := range all {
		for at, value := range v {
			_, input, _ := strings.Cut(at, ".")
			both[fmt.Sprintf("variation %d: %s", i, at)] = node{Inputs: map[string]json.RawMessage{input: value}}
		}
	}
	return both
}
