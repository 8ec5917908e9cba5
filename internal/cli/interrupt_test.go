package cli

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakeapi"
)

// interrupted runs submit and presses Ctrl-C once the job runs.
func interrupted(t *testing.T, s *fakeapi.Server, sh *shell, args ...string) <-chan int {
	t.Helper()
	s.Statuses(running)
	ctx, ctrlC := context.WithCancel(t.Context())
	end := make(chan int, 1)
	path := file(t, t.TempDir(), "w.json", workflow)
	go func() { end <- sh.runContext(ctx, append([]string{"submit", path}, args...)...) }()
	require.Eventually(t, func() bool { return strings.Contains(sh.err.String(), "running: The Sampler") }, 30*time.Second, 5*time.Millisecond)
	ctrlC()
	return end
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		terminal bool
		answer   string
		args     []string
		cancels  int
		says     string
	}{
		"no terminal":         {false, "y\n", nil, 0, "job job-1 goes on; to wait for it again and get its files:\n  comfyd status job-1 --wait --out \".\"\n"},
		"yes":                 {true, "y\n", nil, 1, "job job-1 is being canceled"},
		"no":                  {true, "n\n", nil, 0, "job job-1 goes on"},
		"nothing":             {true, "\n", nil, 0, "job job-1 goes on"},
		"end of input":        {true, "", nil, 0, "job job-1 goes on"},
		"flag":                {true, "n\n", []string{"--cancel-on-interrupt"}, 1, "job job-1 is being canceled"},
		"flag, no terminal":   {false, "", []string{"-y"}, 1, "job job-1 is being canceled"},
		"another folder":      {false, "", []string{"--out", "a b"}, 0, `--out "a b"`},
		"json keeps its word": {false, "", []string{"--json"}, 0, "job job-1 goes on"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeapi.New(t)
			sh := newShell(t, s)
			sh.terminal, sh.in = test.terminal, strings.NewReader(test.answer)
			require.Equal(t, 130, <-interrupted(t, s, sh, test.args...))
			require.Contains(t, sh.err.String(), test.says)
			require.Len(t, s.Calls("POST /cancel"), test.cancels)
			require.Equal(t, test.terminal && test.args == nil, strings.Contains(sh.err.String(), "cancel the job too? [y/N] "))
			require.Empty(t, sh.out.String())
		})
	}
}

func TestSecondInterruptLeavesAtOnce(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	sh := newShell(t, s)
	in, hand := io.Pipe() // nobody answers
	defer func() { _ = hand.Close() }()
	sh.terminal, sh.in = true, in
	end := interrupted(t, s, sh)
	require.Eventually(t, func() bool { return strings.Contains(sh.err.String(), "[y/N]") }, 30*time.Second, 5*time.Millisecond)
	sh.again <- os.Interrupt
	require.Equal(t, 130, <-end)
	require.Empty(t, s.Calls("POST /cancel"))

	// While the cancel hangs.
	s = fakeapi.New(t)
	sh = newShell(t, s)
	s.Next("POST /cancel", func(_ http.ResponseWriter, r *http.Request) {
		sh.again <- os.Interrupt
		<-r.Context().Done()
	})
	end = interrupted(t, s, sh, "--yes")
	began := time.Now()
	require.Equal(t, 130, <-end)
	require.Less(t, time.Since(began), 30*time.Second, "half of what the shell here gives a cancel")
	require.Contains(t, sh.err.String(), "the job may go on")
}

// A Ctrl-C in mid-submission does not lose the job's id.
func TestInterruptWhileSubmitting(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	sh := newShell(t, s)
	ctx, ctrlC := context.WithCancel(t.Context())
	s.Next("POST /submit_workflow", func(w http.ResponseWriter, r *http.Request) {
		ctrlC()
		fakeapi.Answer(202, `{"id":"job-1","status":"RUNNING"}`)(w, r)
	})
	path := file(t, t.TempDir(), "w.json", workflow)
	require.Equal(t, 130, sh.runContext(ctx, "submit", path))
	require.Contains(t, sh.err.String(), "comfyd status job-1 --wait")

	// And where no answer comes, the next one leaves at once.
	sh = newShell(t, s)
	ctx, ctrlC = context.WithCancel(t.Context())
	began := time.Now()
	s.Next("POST /submit_workflow", func(_ http.ResponseWriter, r *http.Request) {
		ctrlC()
		sh.again <- os.Interrupt
		<-r.Context().Done()
	})
	require.Equal(t, 130, sh.runContext(ctx, "submit", path))
	require.Less(t, time.Since(began), 30*time.Second, "half of the grace that the shell here has")
	require.Contains(t, sh.err.String(), "it is not known whether the server took the job")

	ctx, ctrlC = context.WithCancel(t.Context())
	ctrlC()
	require.Equal(t, 130, sh.runContext(ctx, "submit", path, "--image", "a.png="+path))
	require.Contains(t, sh.err.String(), "before anything was submitted")
}

// Real signals.
func TestSystem(t *testing.T) {
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt)
	defer stop()
	env, done := System().interruptible(ctx)
	defer done()
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGINT))
	<-ctx.Done()
	// The second one is heard as soon as the first has been handled.
	require.Eventually(t, func() bool {
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGINT))
		select {
		case <-env.again:
			return true
		case <-time.After(10 * time.Millisecond):
			return false
		}
	}, 30*time.Second, time.Millisecond)
	require.False(t, env.IsTerminal(new(buffer)))
	file, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	require.False(t, env.IsTerminal(file))
}
