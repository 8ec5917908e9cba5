package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program of the cluster, which can be killed and started again. Its methods are not for concurrent use.
type Process struct {
	Name string

	tb     testing.TB
	spawn  chan<- func()
	argv   []string
	env    []string
	dir    string
	uid    int // whom it runs as; 0 is the test's own user
	health func(ctx context.Context) error

	mu   sync.Mutex
	log  bytes.Buffer
	cmd  *exec.Cmd
	gone chan struct{} // closed when cmd has ended
}

// Write takes what the process says.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// Log is what the process has said since the beginning.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// PID is the process's, 0 while it is down.
func (p *Process) PID() int {
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// start runs the program, and ends the test when it cannot.
func (p *Process) start() {
	p.tb.Helper()
	if p.cmd != nil {
		p.tb.Fatalf("%s runs already", p.Name)
	}
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = p.env, p.dir, p, p
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C at the tests is not for it
	endWithUs(cmd.SysProcAttr)
	if p.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(p.uid), Gid: uint32(p.uid)}
	}
	started := make(chan error)
	p.spawn <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		p.tb.Fatalf("starting %s: %v", p.Name, err)
	}
	p.cmd, p.gone = cmd, make(chan struct{})
	go func(gone chan struct{}) {
		_ = cmd.Wait() // how it ended is in its ProcessState
		close(gone)
	}(p.gone)
}

// Start runs the program and returns when it is well.
func (p *Process) Start() {
	p.tb.Helper()
	p.start()
	p.AwaitHealth()
}

// AwaitHealth returns when the process is well, and ends the test when it ends or is not within two minutes.
func (p *Process) AwaitHealth() {
	p.tb.Helper()
	limit := time.After(2 * time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
		err := p.health(ctx)
		done()
		if err == nil {
			return
		}
		select {
		case <-p.gone:
			p.tb.Fatalf("%s has ended (%s):\n%s", p.Name, p.cmd.ProcessState, p.Log())
		case <-limit:
			p.tb.Fatalf("%s is not well after two minutes: %v\n%s", p.Name, err, p.Log())
		case <-tick.C:
		}
	}
}

// Kill is kill -9 of the process and its children, as the kill of a container is. It returns when the process is gone.
func (p *Process) Kill() {
	p.tb.Helper()
	if p.cmd == nil {
		return
	}
	all, err := children(p.PID())
	must(p.tb, err, "the children of "+p.Name)
	for _, pid := range append(all, p.PID()) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already where it fails
	}
	<-p.gone
	p.cmd = nil
}

// Set changes the environment of the next start: "NAME=value".
func (p *Process) Set(vars ...string) { p.env = append(p.env, vars...) }

// Signal sends a signal and waits for nothing.
func (p *Process) Signal(s syscall.Signal) {
	p.tb.Helper()
	must(p.tb, p.cmd.Process.Signal(s), "a signal to "+p.Name)
}

// Gone tells whether the process has ended by itself, or by a signal.
func (p *Process) Gone() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// Reap makes a process that is gone ready for its next start.
func (p *Process) Reap() { p.cmd = nil }

// Stop is what `docker stop` does: SIGTERM, then time. It returns how long the process took.
func (p *Process) Stop() time.Duration {
	p.tb.Helper()
	began := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.gone:
	case <-time.After(30 * time.Second):
		p.tb.Errorf("%s has not stopped 30 s after SIGTERM", p.Name)
		p.Kill()
	}
	p.cmd = nil
	return time.Since(began)
}

// run runs the program to its end, which must be a good one.
func (p *Process) run() {
	p.tb.Helper()
	p.start()
	select {
	case <-p.gone:
	case <-time.After(3 * time.Minute):
		p.tb.Fatalf("%s does not end:\n%s", p.Name, p.Log())
	}
	if !p.cmd.ProcessState.Success() {
		p.tb.Fatalf("%s: %s\n%s", p.Name, p.cmd.ProcessState, p.Log())
	}
	p.cmd = nil
}

// Memory is what the process and its children hold in memory by themselves, in bytes (Pss: what they share is counted once).
func (p *Process) Memory() int64 {
	p.tb.Helper()
	total, err := memory(p.PID())
	if err != nil {
		p.tb.Fatalf("memory of %s: %v", p.Name, err)
	}
	return total
}

// spawner starts processes from one thread that lives as long as the cluster: Linux kills a child that asked for it when
// the thread that made it ends, not the process.
func spawner(tb testing.TB) chan<- func() {
	work := make(chan func())
	var ended sync.WaitGroup
	ended.Go(func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	})
	tb.Cleanup(func() {
		close(work)
		ended.Wait()
	})
	return work
}

// check runs a health check's command.
func check(ctx context.Context, argv, env []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func must(tb testing.TB, err error, what string) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
}

func asRoot() bool { return os.Getuid() == 0 }
