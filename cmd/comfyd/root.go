package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
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

// root is the command line: roles here, client commands in internal/cli.
func root(version string) *cobra.Command {
	cmd := &cobra.Command{
		Use:           "comfyd",
		Short:         "Run ComfyUI as a durable service",
		Long:          "comfyd runs ComfyUI workflows as durable jobs: submit over HTTP, poll, get the images, whatever dies in between.\nWithout a subcommand it serves.",
		Args:          cobra.NoArgs,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          run(app.Serve, version),
	}
	cmd.AddCommand(
		role(app.Serve, "API, worker, and (unless TEMPORAL_ADDRESS is set) Temporal and its UI in one process", version),
		role(app.API, "The HTTP API alone; needs TEMPORAL_ADDRESS", version),
		role(app.Worker, "The worker alone; needs TEMPORAL_ADDRESS", version),
		&cobra.Command{
			Use: "version", Short: "Print the version", Args: cobra.NoArgs,
			Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "comfyd", version) },
		},
	)
	cmd.AddCommand(temporalCommand(), healthCommand())
	cmd.AddCommand(cli.Commands(cli.System())...)
	cmd.AddCommand(doctor.Commands()...)
	cmd.AddCommand(backups(version)...)
	return cmd
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
// memory with Temporal in the process. It costs more collections.
const garbagePercent = 40

// collectSooner sets garbagePercent, unless somebody has set GOGC.
func collectSooner() {
	if before := debug.SetGCPercent(garbagePercent); before != 100 {
		debug.SetGCPercent(before)
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
