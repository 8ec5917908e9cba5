package localcomfy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/gofrs/flock"
)

const (
	// ComfyUIVersion is the release of ComfyUI that is installed where there is none: the newest that public sources
	// name (git tag v0.39.2, commit 3c1b7a17, October 2026). From 0.28.0 on the traversal in LoadImage and its
	// neighbours (CVE-2026-56670 to 56674) are fixed.
	ComfyUIVersion = "0.39.2"
	// comfyCLIVersion is the release of comfy-cli, the installer of ComfyUI's makers, on PyPI.
	comfyCLIVersion = "1.23.0"
)

var errInstalling = errors.New("ComfyUI is being installed, which takes minutes and gigabytes")

// InstallError is why ComfyUI could not be installed.
type InstallError struct {
	Step    string   // what was being done
	Command string   // what was run for it; empty where it did not come to that
	Tail    []string // the last lines that it wrote
	Hint    string   // what a person can do
	Err     error
}

func (e *InstallError) Error() string {
	s := fmt.Sprintf("installing ComfyUI failed: %s: %v; %s", e.Step, e.Err, e.Hint)
	if len(e.Tail) > 0 {
		s += "; the last lines of " + e.Command + ":\n" + strings.Join(e.Tail, "\n")
	}
	return s
}

func (e *InstallError) Unwrap() error { return e.Err }

// installing is the file beside a folder that says that its installation has not come to its end.
func installing(dir string) string { return dir + ".installing" }

// byUs is the file that names the release of a ComfyUI that we have installed.
func byUs(dir string) string { return filepath.Join(dir, ".comfyd") }

func installed(dir string) bool {
	return exists(filepath.Join(dir, "main.py")) && !exists(installing(dir))
}

func halfInstalled(dir string) bool { return exists(installing(dir)) }

// install puts the official ComfyUI into Dir. The folder gets its last name at once, because a Python environment does
// not survive being moved; a file beside it, which is also a lock, says until the end that it is not whole.
func (b *Backend) install(ctx context.Context) error {
	python, err := b.basePython(ctx)
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("git"); err != nil {
		return &InstallError{Step: "looking for git", Err: err, Hint: "install git (Debian: apt-get install git)"}
	}
	if err := os.MkdirAll(filepath.Dir(b.o.Dir), 0o755); err != nil {
		return &InstallError{Step: "making the folder", Err: err, Hint: "correct COMFYUI_DIR"}
	}
	lock := flock.New(installing(b.o.Dir))
	locked, err := lock.TryLock()
	if err != nil || !locked {
		return &InstallError{Step: "marking the folder", Err: errors.Join(err, errTaken), Hint: "another comfyd may be at it; otherwise correct COMFYUI_DIR"}
	}
	defer lock.Unlock()
	if err := clear(b.o.Dir); err != nil {
		return &InstallError{Step: "clearing what is left of an earlier attempt", Err: err, Hint: "move away what you need, and delete the folder"}
	}
	device := findGPU(ctx)
	b.log.WithField("dir", b.o.Dir).WithField("version", ComfyUIVersion).WithField("device", string(device)).
		Info("installing ComfyUI, once; this downloads some gigabytes")
	cli, err := b.comfyCLI(ctx, python)
	if err != nil {
		return err
	}
	if err := b.step(ctx, "running comfy-cli", append([]string{cli}, installArgs(b.o.Dir, device)...)...); err != nil {
		return err
	}
	if !exists(filepath.Join(b.o.Dir, "main.py")) {
		return &InstallError{Step: "looking at what comfy-cli has installed", Err: errors.New("there is no main.py"), Hint: byHand}
	}
	err = os.WriteFile(byUs(b.o.Dir), []byte(ComfyUIVersion+"\n"), 0o644)
	if err == nil {
		err = os.Remove(installing(b.o.Dir))
	}
	if err != nil {
		return &InstallError{Step: "marking the folder as whole", Err: err, Hint: "delete " + installing(b.o.Dir)}
	}
	b.log.WithField("dir", b.o.Dir).Info("ComfyUI is installed")
	return nil
}

func installArgs(dir string, device gpu) []string {
	return []string{"--skip-prompt", "--workspace", dir, "install", "--version", ComfyUIVersion, string(device), "--fast-deps"}
}

// modelSize is what no file is large that an installation brings into the folder for models.
const modelSize = 1 << 20

// clear removes a half installation, but nothing that a person has put there.
func clear(dir string) error {
	err := filepath.WalkDir(filepath.Join(dir, "models"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err != nil || info.Size() >= modelSize {
			return errors.Join(err, fmt.Errorf("%s looks like a model of yours", path))
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}

// basePython finds the Python that the environments are made from.
func (b *Backend) basePython(ctx context.Context) (string, error) {
	name := b.o.Python
	if name == "" {
		name = "python3"
	}
	const step = "looking for Python"
	python, err := exec.LookPath(name)
	if err != nil {
		return "", &InstallError{Step: step, Err: err, Hint: "install Python 3.10 or newer (3.12 or 3.13 is best), with venv"}
	}
	const check = `import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))`
	if out, err := exec.CommandContext(ctx, python, "-c", check).CombinedOutput(); err != nil {
		return "", &InstallError{Step: step, Command: python, Tail: lastLines(string(out), tailLines), Err: err,
			Hint: "ComfyUI needs Python 3.10 or newer with venv (Debian: apt-get install python3-venv)"}
	}
	return python, nil
}

// comfyCLI installs comfy-cli into an environment of its own and returns its program.
func (b *Backend) comfyCLI(ctx context.Context, python string) (string, error) {
	dir := filepath.Join(b.data, "comfy-cli-"+comfyCLIVersion)
	program, whole := filepath.Join(dir, "bin", "comfy"), filepath.Join(dir, ".complete")
	if exists(whole) {
		return program, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", &InstallError{Step: "clearing an earlier comfy-cli", Err: err, Hint: "delete " + dir}
	}
	if err := b.step(ctx, "making a Python environment for comfy-cli", python, "-m", "venv", dir); err != nil {
		return "", err
	}
	if err := b.step(ctx, "installing comfy-cli", filepath.Join(dir, "bin", "python"), "-m", "pip", "install",
		"--disable-pip-version-check", "--no-input", "comfy-cli=="+comfyCLIVersion); err != nil {
		return "", err
	}
	return program, os.WriteFile(whole, nil, 0o600)
}

// step runs a command, passing each of its lines to the log.
func (b *Backend) step(ctx context.Context, step string, command ...string) error {
	var all strings.Builder
	lines := &lineWriter{line: func(line string) {
		if drawn(line) {
			return
		}
		all.WriteString(line + "\n")
		b.log.WithField("step", step).Info(line)
	}}
	err := runGroup(ctx, command, lines)
	lines.flush()
	if err == nil {
		return nil
	}
	tail := lastLines(all.String(), tailLines)
	return &InstallError{Step: step, Command: filepath.Base(command[0]), Tail: tail, Hint: hint(strings.Join(tail, "\n")), Err: err}
}

// drawn tells the frames of comfy-cli's tracebacks, which would push the reason out of the tail.
func drawn(line string) bool { return strings.ContainsAny(line, "│╭╰❱") }

const byHand = "or install ComfyUI by hand and let COMFYUI_DIR name its folder"

// hint tells what to do about the failures that are met most.
func hint(tail string) string {
	for _, h := range []struct{ says, do string }{
		{"Could not resolve host", network}, {"unable to access", network}, {"Failed to connect", network},
		{"Max retries exceeded", network}, {"No matching distribution found", network}, {"Temporary failure in name resolution", network},
		{"client error (Connect)", network}, {"Connection refused", network}, {"timed out", network},
		{"No space left on device", "free some 15 GB of disk, " + byHand},
		{"Failed to checkout tag", "ComfyUI's repository has no release " + ComfyUIVersion + "; update comfyd, " + byHand},
	} {
		if strings.Contains(tail, h.says) {
			return h.do
		}
	}
	return "see its last lines, " + byHand
}

const network = "see that this machine reaches github.com, pypi.org and download.pytorch.org (HTTPS_PROXY names a proxy), " + byHand

// lineWriter hands out what is written to it line by line, without the colours.
type lineWriter struct {
	line func(string)
	rest []byte
}

// colours are the control sequences of terminals.
var colours = regexp.MustCompile(`\x1b\[[0-9;?]*[a-zA-Z]`)

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		i := bytes.IndexAny(w.rest, "\r\n")
		if i < 0 {
			return len(p), nil
		}
		w.emit(w.rest[:i])
		w.rest = w.rest[i+1:]
	}
}

func (w *lineWriter) flush() { w.emit(w.rest); w.rest = nil }

func (w *lineWriter) emit(line []byte) {
	if text := strings.TrimRight(colours.ReplaceAllString(string(line), ""), " \t"); text != "" {
		w.line(text)
	}
}
