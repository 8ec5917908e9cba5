package localcomfy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// ownerOptions makes the test binary a process that owns a ComfyUI until it is killed.
const ownerOptions = "COMFYD_TEST_LOCALCOMFY_OWNER"

func TestMain(m *testing.M) {
	if raw := os.Getenv(ownerOptions); raw != "" {
		own(raw)
		return
	}
	goleak.VerifyTestMain(m)
}

func own(raw string) {
	var o Options
	if err := json.Unmarshal([]byte(raw), &o); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	b, err := start(context.Background(), o, quick())
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for b.Servers()[0].Problem != "" {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("ready")
	select {}
}

// quick is the timing of tests on the stand-in.
func quick() timing {
	return timing{probe: 20 * time.Millisecond, starting: 20 * time.Millisecond, alive: 20 * time.Millisecond, grace: 10 * time.Second,
		check: 50 * time.Millisecond, steady: time.Minute, first: 50 * time.Millisecond, most: time.Second, install: 100 * time.Millisecond, logSize: 1 << 20}
}

// patience is how long what must happen is waited for: a machine may be slow, or stop for seconds.
const patience = 2 * time.Minute

// world is a folder with the stand-in, and a data folder.
type world struct {
	o    Options
	logs *logtest.Hook
}

func newWorld(t *testing.T) *world {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is needed to run a stand-in for ComfyUI")
	}
	w := &world{o: Options{Dir: t.TempDir(), DataDir: t.TempDir(), Python: "python3", StartTimeout: time.Minute, StallTimeout: time.Minute}}
	t.Cleanup(func() { // what a test that failed has left
		if left := (&Backend{}).leftover(context.Background(), w.state(t)); left != nil {
			require.NoError(t, syscall.Kill(-left.pid, syscall.SIGKILL))
		}
	})
	source, err := os.ReadFile("testdata/main.py")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(w.o.Dir, "main.py"), source, 0o600))
	l, hook := logtest.NewNullLogger()
	if testing.Verbose() {
		l.SetOutput(t.Output())
		l.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true})
	}
	w.o.Log, w.logs = l, hook
	return w
}

func (w *world) mode(t *testing.T, mode string) {
	tmp := filepath.Join(w.o.Dir, "mode.tmp")
	require.NoError(t, os.WriteFile(tmp, []byte(mode), 0o600))
	require.NoError(t, os.Rename(tmp, filepath.Join(w.o.Dir, "mode")))
}

func (w *world) file(parts ...string) string {
	return filepath.Join(append([]string{w.o.DataDir, "comfyui-data"}, parts...)...)
}

func (w *world) start(t *testing.T) *Backend { return w.startWith(t, quick()) }

func (w *world) startWith(t *testing.T, tm timing) *Backend {
	b, err := start(t.Context(), w.o, tm)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// started is a backend whose ComfyUI answers.
func (w *world) started(t *testing.T) *Backend {
	b := w.start(t)
	w.ready(t, b)
	return b
}

func (w *world) ready(t *testing.T, b *Backend) {
	require.Eventually(t, func() bool { return b.Servers()[0].Healthy }, patience, 10*time.Millisecond, "not ready")
}

// problem waits for one that holds a text, and that stays until the test does something about it.
func (w *world) problem(t *testing.T, b *Backend, says string) string {
	t.Helper()
	var problem string
	require.Eventually(t, func() bool {
		problem = b.Servers()[0].Problem
		return strings.Contains(problem, says)
	}, patience, 5*time.Millisecond, "no problem that says %q", says)
	require.False(t, b.Servers()[0].Healthy)
	return problem
}

// ended waits until ComfyUI is not up for a reason that holds a text. It goes by the log: a ComfyUI that starts again at
// once has that problem for a moment only.
func (w *world) ended(t *testing.T, says string) error {
	t.Helper()
	var why error
	require.Eventually(t, func() bool {
		for _, e := range w.logs.AllEntries() {
			err, _ := e.Data[logrus.ErrorKey].(error)
			if e.Message == "ComfyUI is not up" && strings.Contains(err.Error(), says) {
				why = err
				return true
			}
		}
		return false
	}, patience, 5*time.Millisecond, "no end that says %q", says)
	return why
}

// pid of the ComfyUI that is remembered.
func (w *world) pid(t *testing.T) int { return w.state(t).PID }

func (w *world) state(t *testing.T) (s state) {
	raw, err := os.ReadFile(w.file("state.json"))
	if !os.IsNotExist(err) { // none has been started
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(raw, &s))
	}
	return s
}

func (w *world) grandchild(t *testing.T) int {
	raw, err := os.ReadFile(filepath.Join(w.o.Dir, "grandchild"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(string(raw))
	require.NoError(t, err)
	return pid
}

// kill is kill -9 of one process. To the system 0 is the caller's whole process group, the tests and their make included.
func kill(t *testing.T, pid int) {
	t.Helper()
	require.Positive(t, pid)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

func lives(pid int) bool {
	p, err := process.NewProcess(int32(pid))
	if err != nil {
		return false
	}
	status, err := p.Status()
	return err == nil && status[0] != process.Zombie
}

func requireGone(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		require.Positive(t, pid)
		require.Eventually(t, func() bool { return !lives(pid) }, patience, 10*time.Millisecond, "process %d lives", pid)
	}
}

// killedOwner starts another process that owns a ComfyUI, waits until that answers, and kills the owner.
func (w *world) killedOwner(t *testing.T) {
	o := w.o
	o.Log = nil
	raw, err := json.Marshal(o)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownerOptions+"="+string(raw))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	cmd.Wait()
	require.False(t, lives(cmd.Process.Pid))
}
