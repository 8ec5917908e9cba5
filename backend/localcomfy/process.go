package localcomfy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/shirou/gopsutil/v4/process"
)

// child is a ComfyUI process, ours by birth or by adoption. It leads a process group, in which are whatever its custom
// nodes have started.
type child struct {
	pid     int
	created int64 // milliseconds, by the system's word
	command []string
	adopted bool
	exited  chan struct{}
	err     error // how it ended; nil where nobody knows. Read it after exited.
}

// spawn starts a command in a process group of its own, so that a signal to comfyd is none to it, with its output in a
// file, so that it does not need us to live.
func spawn(command []string, dir string, env []string, output *os.File) (*child, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, env
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{pid: cmd.Process.Pid, command: command, exited: make(chan struct{})}
	if p, err := process.NewProcess(int32(c.pid)); err == nil {
		c.created, _ = p.CreateTime()
	}
	go func() {
		c.err = cmd.Wait()
		if c.err == nil {
			c.err = errors.New("exit status 0")
		}
		close(c.exited)
	}()
	return c, nil
}

// adopt takes over a process that is not our child, and so has to be looked at to know that it lives.
func adopt(pid int, created int64, command []string, every time.Duration) *child {
	c := &child{pid: pid, created: created, command: command, adopted: true, exited: make(chan struct{})}
	go func() {
		defer close(c.exited)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for find(context.Background(), pid, created) != nil {
			<-tick.C
		}
	}()
	return c
}

// stop ends the process and its group, softly at first, and returns when the process is gone.
func (c *child) stop(grace time.Duration) {
	c.signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.exited:
	case <-timer.C:
	}
	c.signal(syscall.SIGKILL)
	<-c.exited
}

// signal reaches the whole group. A group keeps its number from being given to others for as long as one is in it.
func (c *child) signal(s syscall.Signal) { _ = syscall.Kill(-c.pid, s) }

// find returns the process with this ID, if it lives and began at that time.
func find(ctx context.Context, pid int, created int64) *process.Process {
	p, err := process.NewProcessWithContext(ctx, int32(pid))
	if err != nil {
		return nil
	}
	at, err := p.CreateTimeWithContext(ctx)
	// The system derives this time from the clock, which may have been set since.
	if err != nil || (created != 0 && (at-created > 5000 || created-at > 5000)) {
		return nil
	}
	if status, err := p.StatusWithContext(ctx); err != nil || slices.Contains(status, process.Zombie) {
		return nil
	}
	return p
}

// runs compares command lines, but for the program: a Python may be a shim that starts another.
func runs(ctx context.Context, p *process.Process, command []string) bool {
	line, err := p.CmdlineSliceWithContext(ctx)
	args := command[1:]
	return err == nil && len(line) > len(args) && slices.Equal(line[len(line)-len(args):], args)
}

// runGroup runs a command to its end, or ends it with all that it has started.
func runGroup(ctx context.Context, command []string, output io.Writer) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	// The environment that comfyd itself may run in would be taken for the one to install into.
	cmd.Env = slices.DeleteFunc(environment("DO_NOT_TRACK=1", "NO_COLOR=1", "TERM=dumb", "COLUMNS=200", "GIT_TERMINAL_PROMPT=0"),
		func(v string) bool {
			return strings.HasPrefix(v, "VIRTUAL_ENV=") || strings.HasPrefix(v, "CONDA_PREFIX=")
		})
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// leftover finds the ComfyUI that an earlier comfyd has left running, or nil.
func (b *Backend) leftover(ctx context.Context, s state) *child {
	if len(s.Command) < 2 {
		return nil
	}
	if s.PID != 0 {
		if p := find(ctx, s.PID, s.Created); p == nil || !runs(ctx, p, s.Command) {
			return nil
		}
		return &child{pid: s.PID, created: s.Created, command: s.Command}
	}
	all, err := process.ProcessesWithContext(ctx)
	if err != nil {
		return nil
	}
	for _, p := range all {
		if runs(ctx, p, s.Command) {
			created, _ := p.CreateTimeWithContext(ctx)
			return &child{pid: int(p.Pid), created: created, command: s.Command}
		}
	}
	return nil
}

// takeOver adopts the leftover where it is what we would start now, and ends it otherwise.
func (b *Backend) takeOver(ctx context.Context) *child {
	s := b.readState()
	left := b.leftover(ctx, s)
	if left == nil {
		return nil
	}
	c := adopt(left.pid, left.created, left.command, b.t.alive)
	log := b.log.WithField("pid", c.pid)
	python, err := b.python()
	same := err == nil && s.Dir == b.o.Dir && (slices.Equal(s.Command, b.command(python, true)) || slices.Equal(s.Command, b.command(python, false)))
	if !same {
		log.Info("ending the ComfyUI of an earlier comfyd: it runs with other settings")
		c.stop(b.t.grace)
		return nil
	}
	log.Info("adopting the ComfyUI of an earlier comfyd")
	return c
}

// age is how long the process has run.
func (c *child) age() time.Duration {
	if c.created == 0 {
		return 0
	}
	return time.Since(time.UnixMilli(c.created))
}

// processError is why ComfyUI is not up.
type processError struct {
	what string
	tail []string // the last lines of its log
	err  error
}

func (e *processError) Error() string {
	s := e.what
	if e.err != nil {
		s += fmt.Sprintf(" (%v)", e.err)
	}
	if len(e.tail) > 0 {
		s += "; its last lines:\n" + strings.Join(e.tail, "\n")
	}
	return s
}

func (e *processError) Unwrap() error { return e.err }

// headline is the problem without lines of logs, which may name paths and are not for those who send jobs.
func headline(err error) string {
	var p *processError
	if errors.As(err, &p) {
		return p.what
	}
	var i *InstallError
	if errors.As(err, &i) {
		return "its installation failed (" + i.Step + ")"
	}
	return err.Error()
}
