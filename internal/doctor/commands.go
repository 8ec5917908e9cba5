package doctor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/comfyd/comfyd/internal/config"
	"github.com/comfyd/comfyd/internal/logs"
	"github.com/comfyd/comfyd/modal"
)

// Command is `comfyd doctor`, which speaks to Modal and needs no running comfyd.
func Command() *cobra.Command {
	var gpu bool
	c := &cobra.Command{
		Use: "doctor", Short: "Check the app at Modal, and say what to do about what is wrong", Args: cobra.NoArgs,
		Long: "Checks token, app, Hugging Face secret, models, node packs and the catalogue of the app that MODAL_APP names.\n" +
			"Exit code 1 when something is wrong.",
		Example:      "  comfyd doctor\n  comfyd doctor --gpu",
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := open()
			if err != nil {
				return fmt.Errorf("%w; doctor looks at Modal alone: whether other backends are well, GET /readyz of the comfyd that runs says, and its log why not", err)
			}
			defer b.Close()
			return (&Doctor{Backend: b, Out: cmd.OutOrStdout()}).Check(cmd.Context(), gpu)
		},
	}
	c.Flags().BoolVar(&gpu, "gpu", false, "run the example of each node pack and model on a GPU, too (costs GPU time)")
	return c
}

// AddModelCommand is `comfyd models add`, which does so, too.
func AddModelCommand() *cobra.Command {
	var name, sha256 string
	add := &cobra.Command{
		Use: "add URL FOLDER", Short: "Download one more model to the Volume at Modal", SilenceUsage: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("give a URL and a folder: comfyd models add URL FOLDER")
			}
			return nil
		},
		Long: "Downloads a model file into one of ComfyUI's model folders (checkpoints, loras, vae, ...) on the app's Volume.\n" +
			"The download runs at Modal; where it was interrupted, the same command goes on. Workflows may name the model as soon as it is there.",
		Example: "  comfyd models add https://huggingface.co/org/repo/resolve/main/style.safetensors loras",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := open()
			if err != nil {
				return err
			}
			defer b.Close()
			began := time.Now()
			fmt.Fprintln(cmd.ErrOrStderr(), "downloading at Modal; `modal app logs` shows how far it is")
			m, err := b.AddModel(cmd.Context(), args[0], args[1], name, sha256)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %d bytes  sha256 %s  in %s\n", m.Path, m.Size, m.SHA256, time.Since(began).Round(time.Second))
			return nil
		},
	}
	add.Flags().StringVar(&name, "name", "", "the file's name (default: the URL's)")
	add.Flags().StringVar(&sha256, "sha256", "", "what the file's SHA-256 must be, in hex (default: what the source publishes)")
	return add
}

// open makes a backend from the environment, as comfyd does with COMFYD_BACKEND=modal.
func open() (*modal.Backend, error) {
	c, err := config.Read()
	if err != nil {
		return nil, err
	}
	log := logs.New(logs.Options{Level: "error", Format: c.LogFormat, Out: os.Stderr})
	return modal.New(modal.Options{App: c.ModalApp, Environment: c.ModalEnv, GPUs: c.ModalGPUs, Slots: c.ModalSlots, Log: log, SDKLog: slog.New(logs.Slog(log))})
}
