package localcomfy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// command is how ComfyUI is started. Its own folders are ours, so that cleaning up never touches what a person has in
// Dir; models and custom nodes stay there. The options are those of comfy/cli_args.py, as 0.3.75 has them.
func (b *Backend) command(python string, cpu bool) []string {
	c := []string{python, filepath.Join(b.o.Dir, "main.py"), "--listen", "127.0.0.1", "--port", strconv.Itoa(b.port),
		"--input-directory", filepath.Join(b.data, "input"),
		"--output-directory", filepath.Join(b.data, "output"),
		"--temp-directory", b.data, // ComfyUI appends "temp"
		"--user-directory", filepath.Join(b.data, "user"),
		"--disable-auto-launch"}
	if cpu {
		c = append(c, "--cpu")
	}
	if b.asksPreviews() {
		c = append(c, previewArg, "auto") // 0.3.75 cannot be asked by prompt
	}
	return append(c, b.o.Args...)
}

// previewArg is the argument by which a person chooses what samplers show on the way.
const previewArg = "--preview-method"

func (b *Backend) asksPreviews() bool {
	return b.o.Previews && !slices.ContainsFunc(b.o.Args, func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		return name == previewArg
	})
}

// python finds the interpreter that has ComfyUI's packages: for a ComfyUI that we have installed, the one of the
// environment that was made for it.
func (b *Backend) python() (string, error) {
	if b.o.Python != "" && !exists(byUs(b.o.Dir)) {
		return exec.LookPath(b.o.Python)
	}
	for _, venv := range []string{".venv", "venv"} {
		path := filepath.Join(b.o.Dir, venv, "bin", "python")
		if exists(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath("python3")
	if err != nil {
		return "", fmt.Errorf("%s has no .venv, and there is no python3: %w", b.o.Dir, err)
	}
	return path, nil
}

// deviceArgs are the arguments of main.py by which a person chooses what to compute on.
var deviceArgs = []string{"--cpu", "--directml", "--oneapi-device-selector", "--gpu-only", "--highvram", "--normalvram", "--lowvram", "--novram"}

// needsCPU tells whether ComfyUI has to be told to do without a GPU: it does not start otherwise where its torch finds
// none. The machine's hardware does not answer that alone, because torch may be a build for the CPU.
func (b *Backend) needsCPU(ctx context.Context, python string) bool {
	for _, arg := range b.o.Args {
		if name, _, _ := strings.Cut(arg, "="); slices.Contains(deviceArgs, name) {
			return false
		}
	}
	if findGPU(ctx) == noGPU {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, "-c", askTorch).Output()
	return err == nil && strings.TrimSpace(string(out)) == "cpu"
}

const askTorch = `
import torch
xpu = getattr(torch, "xpu", None)
gpu = torch.cuda.is_available() or (xpu is not None and xpu.is_available()) or torch.backends.mps.is_available()
print("gpu" if gpu else "cpu")
`

// gpu is the kind of a machine's GPU, as comfy-cli's option for it.
type gpu string

const (
	nvidia  gpu = "--nvidia"
	amd     gpu = "--amd"
	mSeries gpu = "--m-series"
	noGPU   gpu = "--cpu"
)

// findGPU asks the vendors' own tools, because a card without a working driver is of no use.
func findGPU(ctx context.Context) gpu {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "nvidia-smi", "-L").Output(); err == nil && strings.Contains(string(out), "GPU ") {
		return nvidia
	}
	if _, err := os.Stat("/dev/kfd"); err == nil {
		if out, err := exec.CommandContext(ctx, "rocminfo").Output(); err == nil && strings.Contains(string(out), "gfx") {
			return amd
		}
	}
	if runtime.GOOS == "darwin" && runtime.GOARCH == "arm64" {
		return mSeries
	}
	return noGPU
}

// secrets are the beginnings of the names of variables that are comfyd's and nobody else's: custom nodes are anybody's
// code.
var secrets = []string{"COMFYD_", "MODAL_", "TEMPORAL_", "AWS_", "AZURE_", "GOOGLE_APPLICATION_CREDENTIALS"}

// environment is comfyd's own without its secrets.
func environment(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return slices.ContainsFunc(secrets, func(s string) bool { return strings.HasPrefix(v, s) })
	})
	return append(env, more...)
}
