// Command comfyd runs ComfyUI as a durable service: `comfyd` alone starts everything in one process; `comfyd submit
// workflow.json` sends it a job. See the README.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/comfyd/comfyd/internal/cli"
	"github.com/comfyd/comfyd/internal/config"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := config.DotEnv()
	if err == nil {
		err = root(version, cli.System()).ExecuteContext(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "comfyd:", err)
	}
	os.Exit(cli.ExitCode(err))
}
