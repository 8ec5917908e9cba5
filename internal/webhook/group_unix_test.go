//go:build unix

package webhook_test

import (
	"os/exec"
	"syscall"
)

// ownGroup makes a process and those that it starts, as `go run` does, end together.
func ownGroup(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
}
