package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/internal/cli"
	"github.com/comfyd/comfyd/internal/config"
)

const keysHelp = `Make API keys, and show whose there are. They are what COMFYD_API_KEYS says, a list or @file with one a line; without it there
is the key that comfyd has made in its data folder, which is good no longer once the setting is there. A tenant sees its own
jobs alone, and may have several keys.

To change a key without an outage:
  1. comfyd keys new TENANT >> api-keys       a second key for the same tenant
  2. restart comfyd (each serve and api)      both are good now
  3. give the new key to its users
  4. take the old line out, and restart again

These commands read the settings of this machine, as comfyd itself would; they call no server.`

// keyFacts are what may be told of a key.
type keyFacts struct {
	Tenant string `json:"tenant"`
	// Fingerprint tells keys apart without giving them away.
	Fingerprint string `json:"fingerprint"`
}

// keysCommand is `comfyd keys`.
func keysCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "keys", Short: "Make API keys, and show whose there are", Long: keysHelp,
		Example: "  comfyd keys new studio-7 >> api-keys && chmod 600 api-keys    # COMFYD_API_KEYS=@api-keys\n  comfyd keys list",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%q is no command of keys; see '%s --help'", args[0], c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(keysNewCommand(), keysListCommand())
	return c
}

func keysNewCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "new TENANT", Short: "Make a key: an entry of COMFYD_API_KEYS",
		Long:    "Print tenant:secret, with a new random secret, as COMFYD_API_KEYS takes it. Nothing is changed or kept; comfyd knows the key once it\nhas started anew with it.",
		Example: "  comfyd keys new studio-7 >> api-keys",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("give one tenant; see '%s --help'", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			k, err := config.NewKey(args[0])
			if err != nil {
				return cli.Usage(err)
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(map[string]string{"tenant": k.Tenant, "secret": k.Secret, "entry": k.Entry()})
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), k.Entry())
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object in place of text")
	return c
}

func keysListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "Show whose keys there are, without the secrets",
		Long: "Show the tenants of the keys that comfyd takes on this machine. The fingerprint, the first 8 digits of the secret's SHA-256, tells one key from\n" +
			"another: printf %s SECRET | sha256sum.",
		Example: "  comfyd keys list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			keys, from, err := config.ReadKeys()
			if err != nil {
				return cli.Usage(err)
			}
			facts := []keyFacts{}
			for _, k := range keys {
				sum := sha256.Sum256([]byte(k.Secret))
				facts = append(facts, keyFacts{k.Tenant, hex.EncodeToString(sum[:4])})
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"from": from, "keys": facts})
			}
			if len(facts) == 0 {
				_, err := fmt.Fprintf(c.ErrOrStderr(), "no key yet: comfyd makes one in %s when it starts\n", from)
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "from %s\n", from)
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "TENANT\tFINGERPRINT")
			for _, f := range facts {
				fmt.Fprintf(w, "%s\t%s\n", f.Tenant, f.Fingerprint)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object in place of text")
	return c
}
