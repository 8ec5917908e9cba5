package localcomfy

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newInstaller is a world without ComfyUI, whose Python is a script that plays venv, pip and, by what it leaves where
// pip would have put comfy-cli, the installer. "comfy" is the script's part that says what comfy-cli does.
func newInstaller(t *testing.T, comfy string) (*world, func() string) {
	w := newWorld(t)
	python, err := exec.LookPath("python3")
	require.NoError(t, err)
	main, err := filepath.Abs("testdata/main.py")
	require.NoError(t, err)
	fake := t.TempDir()
	calls := filepath.Join(fake, "calls")
	require.NoError(t, os.WriteFile(filepath.Join(fake, "comfy"), []byte(`#!/bin/bash
echo "comfy $*" >>`+calls+`
env >`+calls+`.env
dir=$3
install() { # what the real one leaves
  [ -e "$dir" ] && { echo "already there: $dir"; exit 9; }
  mkdir -p "$dir/.venv/bin" && cp `+main+` "$dir" && ln -s `+python+` "$dir/.venv/bin/python"
}
`+comfy), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(fake, "python3"), []byte(`#!/bin/bash
echo "python3 $*" >>`+calls+`
case "$1 $2" in
"-c "*) exit 0 ;;
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip") [ -e `+fake+`/no-pip ] && { echo "ERROR: No matching distribution found for comfy-cli"; exit 1; }
  cp `+fake+`/comfy "$(dirname "$0")/comfy" ;;
*) exit 7 ;;
esac
`), 0o700))
	w.o.Dir = filepath.Join(t.TempDir(), "sub", "comfyui")
	w.o.Python = filepath.Join(fake, "python3")
	t.Setenv("PATH", fake+":/usr/bin:/bin") // no tool of a GPU's vendor
	return w, func() string {
		raw, err := os.ReadFile(calls)
		require.NoError(t, err)
		return string(raw)
	}
}

func TestInstalls(t *testing.T) {
	t.Setenv("COMFYD_API_KEYS", "secret")
	t.Setenv("VIRTUAL_ENV", "/somewhere")
	seen := filepath.Join(t.TempDir(), "seen")
	w, calls := newInstaller(t, `until [ -e `+seen+` ]; do sleep 0.05; done; echo "Cloning"; install`)
	b := w.start(t)
	w.problem(t, b, "being installed")
	require.NoError(t, os.WriteFile(seen, nil, 0o600))
	w.ready(t, b)
	require.Contains(t, calls(), "comfy --skip-prompt --workspace "+w.o.Dir+" install --version "+ComfyUIVersion+" --cpu --fast-deps\n")
	require.Contains(t, calls(), "-m pip install --disable-pip-version-check --no-input comfy-cli=="+comfyCLIVersion+"\n")
	require.NoFileExists(t, installing(w.o.Dir))
	require.Equal(t, filepath.Join(w.o.Dir, ".venv", "bin", "python"), w.state(t).Command[0], "its own environment runs it")
	env, err := os.ReadFile(filepath.Join(filepath.Dir(w.o.Python), "calls.env"))
	require.NoError(t, err)
	require.NotContains(t, string(env), "secret")
	require.NotContains(t, string(env), "VIRTUAL_ENV")
	require.Contains(t, string(env), "DO_NOT_TRACK=1")

	require.NoError(t, b.Close())
	before := calls()
	w.started(t)
	require.Equal(t, before, calls(), "it is installed already")
}

func TestInstallFails(t *testing.T) {
	w, calls := newInstaller(t, `mkdir -p "$dir/half"
for i in $(seq 40); do echo "line $i"; done
echo "│ a frame of a traceback │"
printf '\033[31mfatal: unable to access https://github.com/: Could not resolve host: github.com\033[0m'
[ -e "$dir/../works" ] || exit 128
rm -rf "$dir"; install`)
	b := w.start(t)
	var e *InstallError
	require.ErrorAs(t, w.ended(t, "installing ComfyUI failed"), &e)
	require.Equal(t, "running comfy-cli", e.Step)
	require.Equal(t, "comfy", e.Command)
	require.Len(t, e.Tail, tailLines)
	require.Equal(t, "fatal: unable to access https://github.com/: Could not resolve host: github.com", e.Tail[tailLines-1])
	require.Equal(t, network, e.Hint)
	require.ErrorContains(t, e, "exit status 128")
	require.ErrorContains(t, e, "HTTPS_PROXY")
	require.ErrorContains(t, e, "COMFYUI_DIR")
	require.Equal(t, "its installation failed (running comfy-cli)", headline(e))

	// It is tried again, from the beginning, but comfy-cli is not installed again.
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(w.o.Dir), "works"), nil, 0o600))
	w.ready(t, b)
	require.Equal(t, 1, strings.Count(calls(), "-m pip"))
	require.NoDirExists(t, filepath.Join(w.o.Dir, "half"))
}

func TestInstallOfTheInstallerFails(t *testing.T) {
	w, _ := newInstaller(t, `install`)
	stop := filepath.Join(filepath.Dir(w.o.Python), "no-pip")
	require.NoError(t, os.WriteFile(stop, nil, 0o600))
	b := w.start(t)
	require.ErrorContains(t, w.ended(t, "No matching distribution found"), "installing comfy-cli")
	require.NoError(t, os.Remove(stop))
	w.ready(t, b)
}

func TestHalfInstallationIsDoneAgain(t *testing.T) {
	w, _ := newInstaller(t, `install`)
	require.NoError(t, os.MkdirAll(filepath.Join(w.o.Dir, "models", "vae"), 0o700))
	for _, name := range []string{"main.py", "left", "models/vae/put_vae_here"} {
		require.NoError(t, os.WriteFile(filepath.Join(w.o.Dir, name), nil, 0o600))
	}
	require.NoError(t, os.WriteFile(installing(w.o.Dir), nil, 0o600))
	w.started(t)
	require.NoFileExists(t, filepath.Join(w.o.Dir, "left"))
}

func TestHalfInstallationWithAModelIsKept(t *testing.T) {
	w, _ := newInstaller(t, `install`)
	model := filepath.Join(w.o.Dir, "models", "vae", "mine.safetensors")
	require.NoError(t, os.MkdirAll(filepath.Dir(model), 0o700))
	require.NoError(t, os.WriteFile(model, make([]byte, modelSize), 0o600))
	require.NoError(t, os.WriteFile(installing(w.o.Dir), nil, 0o600))
	w.start(t)
	require.ErrorContains(t, w.ended(t, "mine.safetensors looks like a model of yours"), "move away")
	require.FileExists(t, model)
}

func TestInstallIntoAnEmptyFolder(t *testing.T) {
	w, _ := newInstaller(t, `install`)
	require.NoError(t, os.MkdirAll(w.o.Dir, 0o700))
	w.started(t)
}

func TestCloseEndsAnInstallation(t *testing.T) {
	w, _ := newInstaller(t, `sleep 1000 & echo $! >"`+"$dir"+`.pid"; wait`)
	b, err := start(t.Context(), w.o, quick())
	require.NoError(t, err)
	var pid int
	require.Eventually(t, func() bool {
		raw, _ := os.ReadFile(w.o.Dir + ".pid")
		pid, _ = strconv.Atoi(strings.TrimSpace(string(raw)))
		return pid != 0
	}, patience, 5*time.Millisecond)
	require.NoError(t, b.Close())
	requireGone(t, pid)
	require.True(t, halfInstalled(w.o.Dir))
}

func TestMissingTools(t *testing.T) {
	b := &Backend{o: Options{Dir: filepath.Join(t.TempDir(), "c"), Python: "no-such-python"}, data: t.TempDir(), log: nobody()}
	var e *InstallError
	require.ErrorAs(t, b.install(t.Context()), &e)
	require.Contains(t, e.Hint, "install Python 3.10")

	tools := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(tools, "python3"), []byte("#!/bin/sh\necho No module named ensurepip\nexit 1\n"), 0o700))
	t.Setenv("PATH", tools)
	b.o.Python = ""
	require.ErrorAs(t, b.install(t.Context()), &e)
	require.Contains(t, e.Hint, "python3-venv")
	require.Equal(t, []string{"No module named ensurepip"}, e.Tail)

	require.NoError(t, os.WriteFile(filepath.Join(tools, "python3"), []byte("#!/bin/sh\nexit 0\n"), 0o700))
	require.ErrorAs(t, b.install(t.Context()), &e)
	require.Contains(t, e.Hint, "install git")
}

// The real comfy-cli: does it know our command line, and what comes of a network without GitHub?
func TestRealInstallerWithoutGitHub(t *testing.T) {
	if os.Getenv("COMFYD_TEST_COMFY_CLI") == "" {
		t.Skip("COMFYD_TEST_COMFY_CLI is not set: this downloads comfy-cli from PyPI")
	}
	// Nobody answers there, on machines that reach GitHub too.
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "url.http://127.0.0.1:1/.insteadOf")
	t.Setenv("GIT_CONFIG_VALUE_0", "https://github.com/")
	t.Setenv("HOME", t.TempDir()) // comfy-cli notes there what it did last
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	b := &Backend{o: Options{Dir: filepath.Join(t.TempDir(), "comfyui")}, data: t.TempDir(), log: nobody(), t: defaultTiming()}
	var e *InstallError
	require.ErrorAs(t, b.install(ctx), &e)
	t.Log(e)
	require.Equal(t, "running comfy-cli", e.Step)
	require.Equal(t, network, e.Hint)
	require.Contains(t, strings.Join(e.Tail, "\n"), "127.0.0.1 port 1")
	require.True(t, halfInstalled(b.o.Dir))

	cli := filepath.Join(b.data, "comfy-cli-"+comfyCLIVersion, "bin", "comfy")
	for _, device := range []gpu{nvidia, amd, mSeries, noGPU} {
		out, err := exec.CommandContext(ctx, cli, append(installArgs(b.o.Dir, device), "--help")...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	out, err := exec.CommandContext(ctx, cli, append(installArgs(b.o.Dir, noGPU), "--no-such-option")...).CombinedOutput()
	require.Error(t, err, "%s", out)
	require.NotErrorIs(t, err, syscall.ENOENT)
}
