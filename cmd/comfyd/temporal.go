package main

import (
	"fmt"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/app"
	"github.com/comfyd/comfyd/internal/config"
	"github.com/comfyd/comfyd/internal/logs"
)

// temporalCommand is `comfyd temporal`, for a Temporal cluster that is not embedded.
func temporalCommand() *cobra.Command {
	c := &cobra.Command{Use: "temporal", Short: "Prepare a Temporal cluster, and roll new versions out on it", Args: cobra.NoArgs}
	var update bool
	var endpoint string
	setup := &cobra.Command{
		Use: "setup", Short: "Register the namespace, comfyd's search attributes and its Nexus endpoint on the cluster of TEMPORAL_ADDRESS", Args: cobra.NoArgs,
		Long: "Registers the namespace of TEMPORAL_NAMESPACE, with the retention of COMFYD_RETENTION, comfyd's search attributes and the Nexus endpoint for callers\n" +
			"in other namespaces on the cluster of TEMPORAL_ADDRESS where they are missing, and waits until they can be used. Run it before the first api and worker, and after an upgrade;\n" +
			"running it again changes nothing.",
		Example: "  TEMPORAL_ADDRESS=temporal:7233 comfyd temporal setup",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.ReadTemporal()
			if err != nil {
				return err
			}
			return app.SetUpTemporal(cmd.Context(), c, app.Setup{UpdateRetention: update, NexusEndpoint: endpoint, Out: cmd.OutOrStdout(), Log: quiet(c)})
		},
	}
	setup.Flags().BoolVar(&update, "update-retention", false, "change the retention of a namespace that exists to COMFYD_RETENTION")
	setup.Flags().StringVar(&endpoint, "nexus-endpoint", comfy.NexusEndpoint, "name of the Nexus endpoint; empty makes none")
	c.AddCommand(setup, versionsCommand(), replayCommand())
	return c
}

// quiet is the log of a command that speaks for itself.
func quiet(c *config.Config) *logrus.Logger {
	return logs.New(logs.Options{Level: "error", Format: c.LogFormat, Out: os.Stderr})
}

func hostname() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("the name of this host: %w", err)
	}
	return host, nil
}
