package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
)

// submission are the flags of submit.
type submission struct {
	server
	out           string
	images        []string
	metadata      []string
	timeout       time.Duration
	priority      int
	backend       string
	stripMetadata bool
	webhook       string
	noWait        bool
	cancel        bool
	gallery       gallery

	// One job, or one of two kinds of batches.
	randomSeed bool
	seeds      int
	variations []variation
}

func submitCommand(env Env) *cobra.Command {
	var s submission
	c := &cobra.Command{
		Use:   "submit FILE|-",
		Short: "Run a ComfyUI workflow and write what it makes",
		Long: `Submit a workflow, wait for it, and write its images, files and texts. It is taken in ComfyUI's API format (menu
"Export (API)"), and as the editor saves it (menu "Save"), which the server converts where it can do so safely.

Files that the workflow names (pictures, video, audio, latents, 3D models) and that lie in the workflow's folder or in
the current one are uploaded first; each is told. Nothing else ever is: give other files with --image.

Ctrl-C stops the waiting. On a terminal it asks whether to cancel the job too; otherwise the job goes on. A second
Ctrl-C leaves at once.

The paths of what was written go to standard output, one a line; all else goes to standard error.`,
		Example: `  comfyd submit workflow.json
  comfyd submit workflow.json --out renders --random-seed --metadata shot=7
  comfyd submit workflow.json --seeds 8 --out renders
  comfyd submit workflow.json --image photo.png=/home/me/portrait.png
  jq '."3".inputs.steps = 30' workflow.json | comfyd submit - --json
  id=$(comfyd submit workflow.json --no-wait) && comfyd status "$id" --wait --out .`,
		Args:              one("workflow file, or - for standard input"),
		ValidArgsFunction: completeFiles("json"),
		RunE:              func(c *cobra.Command, args []string) error { return s.run(c.Context(), env, args[0]) },
	}
	s.common(c)
	c.Flags().BoolVar(&s.randomSeed, "random-seed", false, "give each input seed or noise_seed that is a number a random one below 2^32, and tell which")
	c.Flags().IntVar(&s.seeds, "seeds", 0, "run it so many times at once, up to 100, each a job of its own with other seeds, and tell which")
	return c
}

// common are the flags that a single job and a batch have.
func (s *submission) common(c *cobra.Command) {
	s.flags(c)
	s.gallery.flags(c)
	f := c.Flags()
	f.StringVarP(&s.out, "out", "o", ".", "folder to write to; a file that exists is never replaced, the new one gets a number")
	f.StringArrayVar(&s.images, "image", nil, "NAME=PATH: upload PATH as the file that the workflow calls NAME (repeatable)")
	f.StringArrayVar(&s.metadata, "metadata", nil, "KEY=VALUE: a label for the job (repeatable)")
	f.DurationVar(&s.timeout, "timeout", 0, "how long the job may run on its GPU, such as 90s or 1h (default the server's)")
	f.IntVar(&s.priority, "priority", 0, "1 (first) to 5 (last); default 3")
	f.StringVar(&s.backend, "backend", "", "the pool of ComfyUI servers to run on (default the first that fits)")
	f.BoolVar(&s.stripMetadata, "strip-metadata", false, "leave the workflow out of the images")
	f.StringVar(&s.webhook, "webhook", "", "an https address that is told how the job has ended: docs/webhooks.md")
	f.BoolVar(&s.noWait, "no-wait", false, "print the job's id and leave")
	f.BoolVar(&s.cancel, "cancel-on-interrupt", false, "Ctrl-C cancels the job without asking")
	f.BoolVarP(&s.cancel, "yes", "y", false, "the same as --cancel-on-interrupt")
}

// submitGrace is how long a submission under way may still take after a Ctrl-C, so that its job's id is known.
const submitGrace = 2 * time.Second

func (s *submission) run(ctx context.Context, env Env, file string) error {
	env, stop := env.interruptible(ctx)
	defer stop()
	req := client.SubmitRequest{
		TimeoutSeconds: int((s.timeout + time.Second - 1) / time.Second),
		Priority:       s.priority, Backend: s.backend, StripMetadata: s.stripMetadata, WebhookURL: s.webhook,
	}
	switch {
	case s.timeout < 0:
		return usagef("--timeout %v: use a duration above zero", s.timeout)
	case s.seeds < 0:
		return usagef("--seeds %d: say how many jobs there shall be", s.seeds)
	case s.seeds > 0 && s.randomSeed:
		return usagef("--seeds gives each job other seeds already; leave --random-seed out")
	}
	err := s.gallery.check(env, &s.server)
	if err != nil {
		return err
	}
	if req.Metadata, err = pairs(s.metadata); err != nil {
		return err
	}
	workflow, dir, err := readWorkflow(env.In, file)
	if err != nil {
		return err
	}
	screen := newScreen(env)
	g := parseGraph(workflow)
	if s.randomSeed {
		if parseSaved(workflow) != nil {
			return usagef("--random-seed: seeds have no names in the format that the editor saves; export the workflow with \"Export (API)\"")
		}
		var seeds []seed
		if workflow, seeds, err = randomSeeds(workflow); err != nil {
			return err
		}
		if len(seeds) == 0 {
			screen.say("--random-seed: the workflow has no seed that is a number")
		}
		for _, seed := range seeds {
			screen.say("%s of %s: %d", seed.input, g.name(seed.node), seed.value)
		}
	}
	req.Workflow = workflow

	c, err := s.client(env, screen)
	if err != nil {
		return err
	}
	dirs := []string{"."}
	if dir != "" && filepath.Clean(dir) != "." {
		dirs = []string{dir, "."}
	}
	if req.Images, err = upload(ctx, c, screen, g.with(s.variations), dirs, s.images); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%w before anything was submitted", errInterrupted)
		}
		return explain(err, g)
	}
	ids, err := s.send(ctx, env, c, screen, g, req)
	if err != nil || s.noWait {
		return err
	}
	var failed error
	for _, id := range ids {
		f := &follower{env: env, server: &s.server, client: c, screen: screen, gallery: &s.gallery, graph: g, out: s.out, pathsOnly: true, mayCancel: true, cancel: s.cancel}
		err := f.wait(ctx, id)
		if errors.Is(err, errInterrupted) && !s.cancel {
			return err // the rest is asked about no more, and goes on
		}
		if failed == nil {
			failed = err
		}
	}
	return failed
}

// send submits the job, or the batch that is asked for, and returns the IDs. Where nobody waits it prints them.
func (s *submission) send(ctx context.Context, env Env, c *client.Client, screen *screen, g graph, req client.SubmitRequest) ([]string, error) {
	later, done := env.grace(ctx, env.submitGrace)
	defer done()
	var (
		ids    []string
		answer any
		err    error
	)
	if s.seeds > 0 || s.variations != nil {
		var b client.Batch
		b, err = c.SubmitBatch(later, client.BatchRequest{SubmitRequest: req, Seeds: s.seeds, Variations: changes(s.variations)})
		for i, j := range b.Jobs {
			ids = append(ids, j.ID)
			for _, at := range slices.Sorted(maps.Keys(j.Seeds)) {
				screen.say("%s: %s = %d", j.ID, at, j.Seeds[at])
			}
			if i < len(s.variations) {
				screen.say("%s: %s", j.ID, s.variations[i])
			}
		}
		if err == nil {
			screen.say("batch %s; its jobs: comfyd jobs --metadata %s=%s", b.ID, comfy.BatchLabel, b.ID)
		}
		answer = b
	} else {
		var j client.Job
		j, err = c.Submit(later, req)
		ids, answer = []string{j.ID}, j
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%w while submitting; it is not known whether the server took the job", errInterrupted)
	case err != nil:
		return nil, explain(err, g)
	case s.noWait && s.json:
		return ids, printJSON(env.Out, answer)
	case s.noWait:
		_, err := fmt.Fprintln(env.Out, strings.Join(ids, "\n"))
		return ids, err
	}
	for _, id := range ids {
		screen.say("submitted as %s", id)
	}
	return ids, nil
}

// pairs reads KEY=VALUE arguments.
func pairs(args []string) (map[string]string, error) {
	m := map[string]string{}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return nil, usagef("--metadata %q: write KEY=VALUE", a)
		}
		m[k] = v
	}
	return m, nil
}
