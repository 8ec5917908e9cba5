package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// program is a process that the bench has started, in a folder of its own.
type program struct {
	argv, env []string
	dir       string

	cmd  *exec.Cmd
	gone chan struct{}
}

// newProgram makes the folder, in which the program runs, wherever argv[0] is from here. The environment is a bare one, so
// that nothing of the user's changes a figure.
func newProgram(dir string, argv []string, env ...string) (*program, error) {
	file, err := filepath.Abs(argv[0])
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	argv = append([]string{file}, argv[1:]...)
	bare := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + os.TempDir()}
	return &program{dir: dir, argv: argv, env: append(bare, env...)}, nil
}

func (p *program) pid() int { return p.cmd.Process.Pid }

// start runs it and returns how long it took until url answered 200.
func (p *program) start(ctx context.Context, url string) (time.Duration, error) {
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	began := time.Now()
	p.cmd = exec.Command(p.argv[0], p.argv[1:]...)
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.env, p.dir, log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the bench, which then ends it
	if err := p.cmd.Start(); err != nil {
		return 0, err
	}
	p.gone = make(chan struct{})
	go func() {
		_ = p.cmd.Wait() // how it ended is in its ProcessState
		close(p.gone)
	}()
	if err := p.await(ctx, url); err != nil {
		return 0, errors.Join(fmt.Errorf("%s: %w; it said:\n%s", filepath.Base(p.argv[0]), err, p.said()), p.stop())
	}
	return time.Since(began), nil
}

// startTwice runs it on an empty folder, and again on what that has left.
func (p *program) startTwice(ctx context.Context, url string) (all []started, err error) {
	for _, what := range []string{"empty data folder", "data folder of before"} {
		if err := p.stop(); err != nil {
			return nil, err
		}
		took, err := p.start(ctx, url)
		if err != nil {
			return nil, err
		}
		all = append(all, started{what, took})
	}
	return all, nil
}

// await asks url every few milliseconds until it answers 200.
func (p *program) await(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			code := res.StatusCode
			if err := res.Body.Close(); err != nil {
				return err
			}
			if code == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-p.gone:
			return fmt.Errorf("it has ended: %s", p.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", url, context.Cause(ctx))
		}
	}
}

// stop ends it as a service manager does: SIGTERM, then time.
func (p *program) stop() error {
	if p.cmd == nil || p.cmd.Process == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone already where it fails
	select {
	case <-p.gone:
		return nil
	case <-time.After(30 * time.Second):
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
		<-p.gone
		return fmt.Errorf("%s did not stop within 30 s of SIGTERM", filepath.Base(p.argv[0]))
	}
}

// said is the end of its log.
func (p *program) said() string {
	raw, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-3000):])
}

// freeAddress is one on this machine that nothing listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
