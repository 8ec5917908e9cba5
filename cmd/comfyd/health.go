package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/internal/app"
	"github.com/comfyd/comfyd/internal/config"
)

// healthTimeout bounds one check.
const healthTimeout = 5 * time.Second

// healthCommand is `comfyd health`, for health checks of containers that have no shell and no curl.
func healthCommand() *cobra.Command {
	var ready, worker bool
	c := &cobra.Command{
		Use: "health", Short: "Ask the comfyd of this host how it is; exit code 0 when it is well", Args: cobra.NoArgs,
		Long: "Asks the comfyd that listens on this host (COMFYD_LISTEN) whether it is up, or with --ready whether it can take and run jobs.\n" +
			"With --worker, asks the Temporal of TEMPORAL_ADDRESS whether a worker of this host has asked for work lately.",
		Example: "  comfyd health --ready\n  comfyd health --worker",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, done := context.WithTimeout(cmd.Context(), healthTimeout)
			defer done()
			c, err := config.ReadTemporal()
			if err != nil {
				return err
			}
			if worker {
				host, err := hostname()
				if err != nil {
					return err
				}
				return app.WorkerHealth(ctx, c, host, quiet(c))
			}
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			return askHealth(ctx, c, path, cmd.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&ready, "ready", false, "can it take and run jobs: are Temporal, the store and a backend there")
	c.Flags().BoolVar(&worker, "worker", false, "does a worker of this host ask Temporal for work")
	c.MarkFlagsMutuallyExclusive("ready", "worker")
	return c
}

func askHealth(ctx context.Context, c *config.Config, path string, out io.Writer) error {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return &config.Error{Name: "COMFYD_LISTEN", Value: c.Listen, Allowed: "host:port, such as 127.0.0.1:8080"}
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return err
	}
	// No proxy stands between this host and itself, and its certificate is for the name that others use.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("comfyd does not answer: %w", err)
	}
	body, readErr := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if err := errors.Join(readErr, res.Body.Close()); err != nil {
		return fmt.Errorf("reading comfyd's answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("comfyd is not well: %s %s", res.Status, body)
	}
	_, err = fmt.Fprintf(out, "%s\n", body)
	return err
}
