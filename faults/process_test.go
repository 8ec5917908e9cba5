package faults

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The programs under test, built once.
var comfydBin, temporaldBin string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// builtDir names the folder with the programs to a test that runs itself again.
const builtDir = "COMFYD_TEST_BUILT"

func run(m *testing.M) (int, error) {
	if dir := os.Getenv(builtDir); dir != "" {
		comfydBin, temporaldBin = filepath.Join(dir, "comfyd"), filepath.Join(dir, "temporald")
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "faults")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	comfydBin, temporaldBin = filepath.Join(dir, "comfyd"), filepath.Join(dir, "temporald")
	for bin, pkg := range map[string]string{comfydBin: "../cmd/comfyd", temporaldBin: "./temporald"} {
		build := exec.Command("go", "build", "-o", bin, pkg)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return 0, fmt.Errorf("building %s: %w", pkg, err)
		}
	}
	return m.Run(), nil
}

// process is a program that can be killed, paused and started again, with the same settings and addresses.
type process struct {
	t    *testing.T
	name string
	path string
	args []string
	vars []string
	dir  string // it is started here
	log  string
	url  string // of its API, "" for none
	cmd  *exec.Cmd
	seen int64 // size of the log at the last start
}

// launch starts it and waits until it says that it is up. Its API may not be ready then.
func (p *process) launch() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(p.t, err)
	defer log.Close()
	at, err := log.Seek(0, 2)
	require.NoError(p.t, err)
	p.seen = at
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Env = append(environment(), p.vars...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.dir, log, log
	require.NoError(p.t, p.cmd.Start())
	require.Eventually(p.t, func() bool {
		require.False(p.t, dead(p.cmd.Process.Pid), "%s has ended at its start", p.name)
		raw, err := os.ReadFile(p.log)
		return err == nil && bytes.Contains(raw[p.seen:], []byte("\nTemporal ")) || bytes.HasPrefix(raw[p.seen:], []byte("Temporal "))
	}, 5*time.Minute, 20*time.Millisecond, "%s comes up", p.name)
}

// start is launch, and the API is ready.
func (p *process) start() {
	p.t.Helper()
	p.launch()
	if p.url == "" {
		return
	}
	c := &Client{URL: p.url, Tenant: "nobody", History: &History{}}
	require.Eventually(p.t, func() bool {
		return c.Do(context.Background(), "GET", "/readyz", "", nil, nil).Code == 200
	}, 5*time.Minute, 50*time.Millisecond, "%s becomes ready", p.name)
}

func (p *process) alive() bool { return p.cmd != nil }

// signal sends a signal that ends the process, and waits for that end.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if p.cmd == nil {
		return
	}
	require.NoError(p.t, p.cmd.Process.Signal(s))
	_ = p.cmd.Wait() // killed: it says so
	p.cmd = nil
}

func (p *process) kill() { p.signal(syscall.SIGKILL) }

// pause and resume are SIGSTOP and SIGCONT. Paused tells what the kernel says.
func (p *process) pause()  { require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGSTOP)) }
func (p *process) resume() { require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGCONT)) }

func (p *process) paused() bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	return stateOf(raw) == 'T'
}

// stateOf reads a process's state from /proc/PID/stat.
func stateOf(stat []byte) byte {
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return rest[0]
}

// dead tells whether a process has ended; one that nobody has noticed yet counts.
func dead(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	return stateOf(raw) == 'Z'
}

// said is what it has written since its last start.
func (p *process) said() string {
	p.t.Helper()
	raw, err := os.ReadFile(p.log)
	require.NoError(p.t, err)
	return string(raw[p.seen:])
}

// resident is the memory that it holds, in bytes.
func (p *process) resident() int64 {
	p.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	var size, pages int64
	_, err = fmt.Sscan(string(raw), &size, &pages)
	require.NoError(p.t, err)
	return pages * int64(os.Getpagesize())
}

// environment is that of the tests without what would change comfyd.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		for _, name := range []string{"COMFY", "TEMPORAL_", "MODAL_", "HOME=", "TMPDIR=", "XDG_"} {
			if strings.HasPrefix(v, name) {
				return true
			}
		}
		return false
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}
