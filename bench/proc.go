package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one whose cost is measured, with the children that it has made.
type process struct {
	name string
	pid  int
}

// tick is the unit of the times in /proc/PID/stat, on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// cpu is what the process, its children and those that are gone have used.
func (p process) cpu() (time.Duration, error) {
	var total int64
	for i, pid := range append([]int{p.pid}, children(p.pid)...) {
		fields, err := stat(pid)
		if err != nil {
			if i > 0 { // it has ended meanwhile, and counts as the parent's
				continue
			}
			return 0, err
		}
		for _, f := range fields[11:15] { // its own, user and system; its dead children's, the same
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			total += n
		}
	}
	return time.Duration(total) * tick, nil
}

// memory is what the process and its children hold in memory by themselves, in bytes; what they share counts once.
func (p process) memory() (int64, error) {
	var total int64
	for i, pid := range append([]int{p.pid}, children(p.pid)...) {
		n, err := field(pid, "smaps_rollup", "Pss:")
		if err != nil && i == 0 {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// forgetPeak makes the kernel's VmHWM, the most memory that the process itself has had, count from now on.
func (p process) forgetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0)
}

// stat are the fields of /proc/PID/stat after the name, which may hold anything: the first is the state.
func stat(pid int) ([]string, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 15 {
		return nil, fmt.Errorf("/proc/%d/stat: %q", pid, raw)
	}
	return fields, nil
}

// field is a value of a file in /proc/PID that is given in kB.
func field(pid int, file, name string) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no %s in /proc/%d/%s", name, pid, file)
}

// children are the processes that a process has made.
func children(parent int) []int {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var found []int
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		if fields, err := stat(pid); err == nil && fields[1] == strconv.Itoa(parent) {
			found = append(found, pid)
		}
	}
	return found
}

// ownCPU is what the bench itself has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// load is the machine's load average of the last minute.
func load() float64 {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseFloat(strings.Fields(string(raw))[0], 64) // the kernel writes numbers
	return n
}

// errNotLinux says why there are no figures of processes.
var errNotLinux = errors.New("the bench reads /proc: it runs on Linux")
