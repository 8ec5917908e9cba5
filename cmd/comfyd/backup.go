package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/internal/backup"
	"github.com/comfyd/comfyd/internal/cli"
	"github.com/comfyd/comfyd/internal/config"
	"github.com/comfyd/comfyd/store"
)

const backupHelp = `Copies the state of the all-in-one comfyd of COMFYD_DATA_DIR to a new folder, while it runs or when it is stopped: the
database of the embedded Temporal, the files of the store, the keys and the name of the local pool. The folder has its
name once the backup is complete; FOLDER.partial-... is what a killed one has left. Not in it: a store that is a bucket,
keys that come from the environment, .env, and ComfyUI with its models.`

const restoreHelp = `Puts a backup into COMFYD_DATA_DIR, and its files into the folder of COMFYD_STORE_URL, after checking all of it. Both have
to be empty, and comfyd has to be stopped. Jobs that were open at the time of the backup go on when comfyd starts; make
sure that the comfyd which was backed up does not run any more.`

const backupExits = `

Exit codes:
  0    done
  1    something could not be read or written, or a comfyd runs on the data folder (restore)
  2    wrong usage, or refused as it stands; nothing was changed
  130  interrupted`

// backups are the commands that copy the data folder and put it back.
func backups(version string) []*cobra.Command {
	var link bool
	save := &cobra.Command{
		Use: "backup FOLDER", Short: "Copy jobs, files and keys to a new folder, while comfyd runs or not", Long: backupHelp + backupExits,
		Example: `  comfyd backup /backup/comfyd-$(date +%F)`, Args: oneFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, o, err := backupOptions(cmd, version)
			if err != nil {
				return err
			}
			o.Link = link
			m, err := backup.Make(cmd.Context(), o, args[0])
			if err != nil {
				return usage(err)
			}
			if c.APIKeys != "" {
				o.Say("the API keys come from COMFYD_API_KEYS: keep that setting, too")
			}
			if c.SigningKey != "" {
				o.Say("the signing key comes from COMFYD_SIGNING_KEY: keep that setting, too")
			}
			if m.Store == nil {
				o.Say("the files lie in a bucket: back that up by its own means, after this")
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", args[0], m.Summary())
			return err
		},
	}
	save.Flags().BoolVar(&link, "link", false, "make hard links of the store's files in place of copies (same file system; a damaged file is damaged in both)")
	restore := &cobra.Command{
		Use: "restore FOLDER", Short: "Put a backup into an empty data folder", Long: restoreHelp + backupExits,
		Example: `  COMFYD_DATA_DIR=/srv/comfyd/data comfyd restore /backup/comfyd-2026-11-30`, Args: oneFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, o, err := backupOptions(cmd, version)
			if err != nil {
				return err
			}
			m, err := backup.Restore(cmd.Context(), o, args[0])
			if err != nil {
				return usage(err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", c.DataDir, m.Summary())
			return err
		},
	}
	return []*cobra.Command{save, restore}
}

func oneFolder(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("give one folder; see '%s --help'", c.CommandPath())
	}
	return nil
}

func backupOptions(cmd *cobra.Command, version string) (*config.Config, backup.Options, error) {
	c, err := config.Read()
	if err != nil {
		return nil, backup.Options{}, cli.Usage(err)
	}
	if !c.Embedded() {
		return nil, backup.Options{}, cli.Usage(errors.New("TEMPORAL_ADDRESS is set: the jobs are in that Temporal's database; back that up, and then the store, by their own means (docs/operations.md)"))
	}
	return c, backup.Options{
		DataDir: c.DataDir, Store: store.FolderOf(c.StoreURL), Version: version,
		Say: func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) },
	}, nil
}

// usage marks what the caller has to change.
func usage(err error) error {
	var refused *backup.Refusal
	if errors.As(err, &refused) {
		return cli.Usage(err)
	}
	return err
}
