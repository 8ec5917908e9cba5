package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/internal/app"
	"github.com/comfyd/comfyd/internal/cli"
	"github.com/comfyd/comfyd/internal/config"
	"github.com/comfyd/comfyd/internal/doctor"
	"github.com/comfyd/comfyd/internal/logs"
)

// stopTimeout is what a stopping process grants its parts.
const stopTimeout = 20 * time.Second

// root is the command line: roles here, client commands in internal/cli, for which env is.
func root(version string, env cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:           "comfyd",
		Short:         "Run ComfyUI as a durable service",
		Long:          "comfyd runs ComfyUI workflows as durable jobs: submit over HTTP, poll, get the images, whatever dies in between.\nWithout a subcommand it serves.",
		Args:          noSuch,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          run(app.Serve, version),
		// How many letters a name may be off to be suggested.
		SuggestionsMinimumDistance: 2,
	}
	group(cmd, "serve", "Serve:",
		role(app.Serve, "API, worker, and (unless TEMPORAL_ADDRESS is set) Temporal and its UI in one process", version),
		role(app.API, "The HTTP API alone; needs TEMPORAL_ADDRESS", version),
		role(app.Worker, "The worker alone; needs TEMPORAL_ADDRESS", version),
	)
	group(cmd, "use", "Use a comfyd that serves:", cli.Commands(env)...)
	group(cmd, "care", "Take care of one:", append(backups(version), keysCommand(), doctor.Command(), healthCommand(), temporalCommand())...)
	cmd.AddCommand(&cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "comfyd", version) },
	})
	for _, c := range cmd.Commands() {
		if c.Name() == "models" {
			c.AddCommand(doctor.AddModelCommand())
		}
	}
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return cli.Usage(fmt.Errorf("%w; see '%s --help'", err, c.CommandPath()))
	})
	strict(cmd)
	return cmd
}

// noSuch are the arguments of comfyd itself: what is no command.
func noSuch(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	meant := "."
	if like := c.SuggestionsFor(args[0]); len(like) > 0 {
		meant = "; did you mean " + strings.Join(like, " or ") + "?"
	}
	return fmt.Errorf("%q is no command%s See 'comfyd --help'", args[0], meant)
}

// strict makes wrong arguments of any command wrong usage, by its exit code.
func strict(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return cli.Usage(err)
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

// group adds commands below a title of their own.
func group(cmd *cobra.Command, id, title string, commands ...*cobra.Command) {
	cmd.AddGroup(&cobra.Group{ID: id, Title: title})
	for _, c := range commands {
		c.GroupID = id
	}
	cmd.AddCommand(commands...)
}

func role(r app.Role, short, version string) *cobra.Command {
	return &cobra.Command{Use: string(r), Short: short, Args: cobra.NoArgs, RunE: run(r, version)}
}

// run serves until the context ends (SIGTERM, Ctrl-C) or a part fails.
func run(r app.Role, version string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		read := config.Load
		if r == app.Worker { // it answers nobody, and signs nothing
			read = config.Read
		}
		c, err := read()
		if err != nil {
			return err
		}
		var hide []string
		for _, k := range c.Keys {
			hide = append(hide, k.Secret)
		}
		for _, k := range c.Payload {
			hide = append(hide, base64.StdEncoding.EncodeToString(k.Secret))
		}
		for _, s := range c.WebhookSecrets {
			hide = append(hide, s.Value)
		}
		log := logs.New(logs.Options{Level: c.LogLevel, Format: c.LogFormat, Out: os.Stderr, Hide: append(hide, c.SigningKey, c.MetricsKey, c.Codec)})
		for _, line := range c.Unknown {
			log.Warn(line)
		}
		if c.Embedded() {
			collectSooner()
		}
		a := app.New(c, r, version, log)
		if err := a.Start(cmd.Context()); err != nil {
			return err
		}
		greet(cmd, c, a)
		select {
		case <-cmd.Context().Done():
			log.Info("stopping; jobs that run go on at the next start")
			again, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			a.Drain(again)
			stop()
		case err = <-a.Failed():
		}
		ctx, done := context.WithTimeout(context.Background(), stopTimeout)
		defer done()
		a.Stop(ctx)
		return err
	}
}

// garbagePercent lets the heap grow by less between two collections than Go's 100 does, so that a burst of jobs takes less
// memory with Temporal in the process. It costs more collections: with 40 a job took an eighth more CPU.
const garbagePercent = 75

// collectSooner sets garbagePercent, unless somebody has set GOGC.
func collectSooner() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}

// greet tells a person where everything is.
func greet(cmd *cobra.Command, c *config.Config, a *app.App) {
	out := cmd.OutOrStdout()
	if a.Address() != "" {
		scheme := "http"
		if c.TLSCert != "" {
			scheme = "https"
		}
		fmt.Fprintf(out, "API          %s://%s\n", scheme, a.Address())
		if c.APIKeys == "" {
			fmt.Fprintf(out, "API key      %s/api-key\n", c.DataDir)
		}
	}
	if a.MetricsAddress() != "" {
		fmt.Fprintf(out, "Metrics      http://%s/metrics\n", a.MetricsAddress())
	}
	if a.TemporalUI != "" {
		fmt.Fprintf(out, "Temporal UI  http://%s\n", a.TemporalUI)
	}
	fmt.Fprintf(out, "Temporal     %s\n", a.TemporalAddress)
}
