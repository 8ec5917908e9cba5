package localcomfy

import (
	"encoding/json"
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

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

func TestStartAndClose(t *testing.T) {
	t.Setenv("COMFYD_API_KEYS", "secret")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("HF_TOKEN", "theirs")
	w := newWorld(t)
	w.o.Args = []string{"--mark", "x"}
	w.mode(t, "loading")
	b, err := start(t.Context(), w.o, quick())
	require.NoError(t, err)
	require.Equal(t, "ComfyUI is starting", b.Servers()[0].Problem)
	w.mode(t, "")
	w.ready(t, b)

	pool := b.Pool()
	require.Regexp(t, `^local-[a-z0-9]([a-z0-9-]*[a-z0-9])?$`, pool.Name)
	require.Equal(t, backend.Pool{Name: pool.Name, Kind: "local", Slots: 2}, pool)
	server := b.Servers()[0]
	require.Empty(t, server.Problem)
	require.Equal(t, "0.0.1", server.Version)

	var seen struct {
		Env  map[string]string
		Argv []string
		CWD  string
	}
	raw, err := os.ReadFile(filepath.Join(w.o.Dir, "seen"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &seen))
	require.NotContains(t, string(raw), "secret")
	require.Equal(t, "theirs", seen.Env["HF_TOKEN"])
	require.Equal(t, w.o.Dir, seen.CWD)
	line := strings.Join(seen.Argv, " ")
	for _, want := range []string{"--listen 127.0.0.1", "--input-directory " + w.file("input"), "--output-directory " + w.file("output"),
		"--temp-directory " + w.file(), "--user-directory " + w.file("user"), "--mark x"} {
		require.Contains(t, line, want)
	}

	pid, grandchild, port := w.pid(t), w.grandchild(t), w.state(t).Port
	require.True(t, lives(pid))
	require.True(t, lives(grandchild))
	require.NoError(t, b.Close())
	require.False(t, lives(pid), "Close has to wait for the end")
	require.FileExists(t, filepath.Join(w.o.Dir, "terminated"), "ComfyUI had no chance to end by itself")
	requireGone(t, grandchild)
	require.Equal(t, state{Port: port}, w.state(t))

	again := w.started(t)
	require.Equal(t, server.Name, again.Servers()[0].Name, "the port changed")
}

func TestCloseWhileStarting(t *testing.T) {
	w := newWorld(t)
	w.mode(t, "never ready")
	b, err := start(t.Context(), w.o, quick())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return exists(filepath.Join(w.o.Dir, "seen")) && w.pid(t) != 0 }, patience, 5*time.Millisecond)
	pid := w.pid(t)
	require.True(t, lives(pid))
	require.NoError(t, b.Close())
	require.False(t, lives(pid))
}

func TestDiesAtStart(t *testing.T) {
	w := newWorld(t)
	w.mode(t, "dies")
	b := w.start(t)
	problem := w.problem(t, b, "exit status 3")
	require.Contains(t, problem, "ComfyUI ended while it was starting")
	require.Equal(t, tailLines, strings.Count(problem, "\nline "), problem)
	require.Contains(t, problem, "\nline 39")
	require.NotContains(t, problem, "\nline 19\n")
	require.NotContains(t, problem, runMark)

	graph, err := comfy.ParseGraph([]byte(`{"1":{"class_type":"PreviewAny","inputs":{"source":"x"}}}`))
	require.NoError(t, err)
	prompt := &backend.Prompt{JobID: "j", ID: "p", Graph: graph}
	err = b.Ready(t.Context(), prompt)
	var e *backend.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, comfy.BackendUnavailable, e.Code)
	require.Contains(t, e.Message, "ComfyUI ended while it was starting")
	require.NotContains(t, e.Message, "line 39", "log lines are not for those who send jobs")
	require.ErrorContains(t, e.Cause, "line 39")

	require.Eventually(t, func() bool {
		log, err := os.ReadFile(w.file("comfyui.log"))
		require.NoError(t, err)
		return strings.Count(string(log), runMark) >= 3
	}, patience, 10*time.Millisecond, "it is not tried again")
	w.mode(t, "")
	w.ready(t, b)
	require.NoError(t, b.Ready(t.Context(), prompt))
}

func TestNeverReady(t *testing.T) {
	w := newWorld(t)
	w.o.StartTimeout = 10 * time.Second
	w.mode(t, "never ready")
	b := w.start(t)
	require.Eventually(t, func() bool { return exists(w.file("state.json")) && w.pid(t) != 0 }, patience, time.Millisecond)
	pid := w.pid(t)
	problem := w.problem(t, b, "has not answered for 10s")
	require.Contains(t, problem, "\nloading for ever")
	requireGone(t, pid)
	w.mode(t, "")
	w.ready(t, b)
}

func TestKilled(t *testing.T) {
	w := newWorld(t)
	b := w.started(t)
	pid, grandchild := w.pid(t), w.grandchild(t)
	kill(t, pid)
	require.ErrorContains(t, w.ended(t, "signal: killed"), "memory")
	requireGone(t, grandchild)
	w.ready(t, b)
	require.NotEqual(t, pid, w.pid(t))
}

func TestStartedAgainAtOnceAfterASteadyRun(t *testing.T) {
	w := newWorld(t)
	tm := quick()
	tm.steady, tm.first, tm.most = 0, time.Hour, time.Hour
	b, err := start(t.Context(), w.o, tm)
	require.NoError(t, err)
	defer b.Close()
	w.ready(t, b)
	for range 2 {
		pid := w.pid(t)
		kill(t, pid)
		require.Eventually(t, func() bool {
			next := w.pid(t) // 0 in between
			return next != 0 && next != pid && b.Servers()[0].Healthy
		}, patience, 10*time.Millisecond)
	}
}

func TestRecycledWhenAPromptStalls(t *testing.T) {
	w := newWorld(t)
	w.mode(t, "stubborn")
	tm := quick()
	tm.grace = 500 * time.Millisecond
	b := w.startWith(t, tm)
	w.ready(t, b)
	pid, grandchild := w.pid(t), w.grandchild(t)
	start := time.Now()
	for range 3 { // more than one prompt may tell
		b.stalled(b.server, backend.Errorf(comfy.Timeout, "no sign of life"))
	}
	require.ErrorContains(t, w.ended(t, "no sign of life"), "started anew")
	require.GreaterOrEqual(t, time.Since(start), tm.grace, "SIGTERM comes first")
	requireGone(t, pid, grandchild)
	w.ready(t, b)
	next := w.pid(t)
	require.NotEqual(t, pid, next)
	require.Never(t, func() bool { return w.pid(t) != next }, time.Second, 50*time.Millisecond, "one stall recycles once")
}

func TestRecycledWhenSilent(t *testing.T) {
	w := newWorld(t)
	w.o.StallTimeout = 5 * time.Second
	b := w.started(t)
	pid := w.pid(t)
	w.mode(t, "silent")
	w.problem(t, b, "it has given no answer for")
	w.mode(t, "")
	requireGone(t, pid)
	w.ready(t, b)
}

func TestAdopted(t *testing.T) {
	w := newWorld(t)
	w.killedOwner(t)
	pid := w.pid(t)
	require.True(t, lives(pid))
	b, err := start(t.Context(), w.o, quick())
	require.NoError(t, err)
	w.ready(t, b)
	require.Equal(t, pid, w.pid(t))
	require.True(t, lives(pid))
	kill(t, pid)
	w.ended(t, "ComfyUI ended")
	w.ready(t, b)
	require.NotEqual(t, pid, w.pid(t))
	require.NoError(t, b.Close())
}

func TestAdoptedIsStoppedByClose(t *testing.T) {
	w := newWorld(t)
	w.killedOwner(t)
	pid, grandchild := w.pid(t), w.grandchild(t)
	b, err := start(t.Context(), w.o, quick())
	require.NoError(t, err)
	w.ready(t, b)
	require.NoError(t, b.Close())
	require.False(t, lives(pid))
	requireGone(t, grandchild)
}

func TestAdoptedAlthoughItWasNotNoted(t *testing.T) {
	w := newWorld(t)
	w.killedOwner(t)
	s := w.state(t)
	pid := s.PID
	s.PID, s.Created = 0, 0 // killed between the start and this
	raw, err := json.Marshal(s)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.file("state.json"), raw, 0o600))
	b, err := start(t.Context(), w.o, quick())
	require.NoError(t, err)
	w.ready(t, b)
	require.True(t, lives(pid))
	log, err := os.ReadFile(w.file("comfyui.log"))
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(log), runMark), "a second one was started")
	require.NoError(t, b.Close())
	require.False(t, lives(pid))
}

func TestNotAdoptedWithOtherSettings(t *testing.T) {
	w := newWorld(t)
	w.killedOwner(t)
	pid, port := w.pid(t), w.state(t).Port
	w.o.Args = []string{"--mark", "other"}
	w.started(t)
	require.False(t, lives(pid))
	require.NotEqual(t, pid, w.pid(t))
	require.Equal(t, port, w.state(t).Port)
}

func TestNotAdoptedWhenItDoesNotAnswer(t *testing.T) {
	w := newWorld(t)
	w.killedOwner(t)
	pid := w.pid(t)
	w.o.StartTimeout, w.o.StallTimeout = 10*time.Second, 10*time.Second
	w.mode(t, "silent")
	b := w.start(t)
	w.problem(t, b, "has not answered")
	w.mode(t, "")
	requireGone(t, pid)
	w.ready(t, b)
}

func TestUnrelatedProcessIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.killedOwner(t)
	old := w.state(t)
	kill(t, old.PID)
	kill(t, w.grandchild(t))
	requireGone(t, old.PID)
	other := exec.Command("sleep", "1000")
	other.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, other.Start())
	defer func() { other.Process.Kill(); other.Wait() }()
	old.PID = other.Process.Pid
	raw, err := json.Marshal(old)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.file("state.json"), raw, 0o600))

	b, err := start(t.Context(), w.o, quick())
	require.NoError(t, err)
	w.ready(t, b)
	require.NotEqual(t, other.Process.Pid, w.pid(t))
	require.NoError(t, b.Close())
	require.True(t, lives(other.Process.Pid))
}

func TestLaterProcessWithTheSameCommandIsNotOurs(t *testing.T) {
	w := newWorld(t)
	w.killedOwner(t)
	s := w.state(t)
	b := &Backend{}
	require.NotNil(t, b.leftover(t.Context(), s))
	later := s
	later.Created -= 60_000
	require.Nil(t, b.leftover(t.Context(), later))
	other := s
	other.Command = append(slices.Clone(s.Command), "x")
	require.Nil(t, b.leftover(t.Context(), other))
	self := s
	self.PID, self.Created = os.Getpid(), 0
	require.Nil(t, b.leftover(t.Context(), self))
}

// In a container whose first process does not collect the dead, an orphan stays in the list of processes for ever.
func TestZombieIsDead(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	require.NoError(t, cmd.Start())
	require.NotNil(t, find(t.Context(), cmd.Process.Pid, 0))
	require.NoError(t, cmd.Process.Kill())
	require.Eventually(t, func() bool { return find(t.Context(), cmd.Process.Pid, 0) == nil }, patience, 10*time.Millisecond)
	require.Error(t, cmd.Wait())
}

func TestAdoptedLongAfterItsStart(t *testing.T) {
	w := newWorld(t)
	w.killedOwner(t)
	pid := w.pid(t)
	w.o.StartTimeout = time.Nanosecond // as if it had begun long ago
	w.started(t)
	require.Equal(t, pid, w.pid(t))
	require.True(t, lives(pid))
}

func TestSecondOwnerIsRefused(t *testing.T) {
	w := newWorld(t)
	w.started(t)
	_, err := start(t.Context(), w.o, quick())
	require.ErrorContains(t, err, "another comfyd runs the ComfyUI of "+w.file())
}

func TestPortTaken(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w.o.Port = l.Addr().(*net.TCPAddr).Port
	b := w.start(t)
	w.problem(t, b, "is taken by another program")
	l.Close()
	w.ready(t, b)
	require.Equal(t, w.o.Port, w.state(t).Port)
}

func TestRememberedPortTaken(t *testing.T) {
	w := newWorld(t)
	b, err := start(t.Context(), w.o, quick())
	require.NoError(t, err)
	w.ready(t, b)
	port := w.state(t).Port
	require.NoError(t, b.Close())
	l, err := listen(t.Context(), port)
	require.NoError(t, err)
	defer l.Close()
	w.started(t)
	require.NotEqual(t, port, w.state(t).Port)
}

func TestFolderThatIsNoComfyUIIsRefused(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600))
	_, err := start(t.Context(), Options{Dir: dir, DataDir: t.TempDir()}, quick())
	require.ErrorContains(t, err, "COMFYUI_DIR "+dir+" holds no ComfyUI")
	require.FileExists(t, filepath.Join(dir, "precious"))
}

// TestPoolKeepsItsName: jobs wait in a queue that is named after the pool, so the name outlives restarts, and two data
// folders on one host have two.
func TestPoolKeepsItsName(t *testing.T) {
	data := t.TempDir()
	first, err := poolName(data)
	require.NoError(t, err)
	require.Regexp(t, `^local-[a-z0-9-]+-[0-9a-f]{6}$`, first)
	again, err := poolName(data)
	require.NoError(t, err)
	require.Equal(t, first, again)
	other, err := poolName(t.TempDir())
	require.NoError(t, err)
	require.NotEqual(t, first, other)
}
