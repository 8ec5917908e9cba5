//go:build unix

package cli

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// askTerminal sends a query to the terminal of this process and returns what it answers in time; none where there is no
// terminal, or another process has it: who reads or sets it from the background is stopped.
func askTerminal(query string, within time.Duration) string {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return ""
	}
	defer func() { _ = tty.Close() }()
	raw, err := tty.SyscallConn()
	if err != nil {
		return ""
	}
	foreground := false
	if err := raw.Control(func(fd uintptr) {
		group, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP)
		foreground = err == nil && group == unix.Getpgrp()
	}); err != nil || !foreground {
		return ""
	}
	return ask(tty, query, within)
}

// ask ends when the device attributes have come, which are the last that is asked for.
func ask(tty *os.File, query string, within time.Duration) string {
	// Fd would make the file one without deadlines.
	raw, err := tty.SyscallConn()
	if err != nil || tty.SetDeadline(time.Now().Add(within)) != nil {
		return ""
	}
	var before *term.State
	if cerr := raw.Control(func(fd uintptr) { before, err = term.MakeRaw(int(fd)) }); cerr != nil || err != nil {
		return ""
	}
	defer func() { _ = raw.Control(func(fd uintptr) { _ = term.Restore(int(fd), before) }) }()
	if _, err := tty.WriteString(query); err != nil {
		return ""
	}
	var answer strings.Builder
	buffer := make([]byte, 256)
	for !deviceAttributes.MatchString(answer.String()) {
		n, err := tty.Read(buffer)
		answer.Write(buffer[:n])
		if err != nil || answer.Len() > 4<<10 {
			break
		}
	}
	return answer.String()
}
