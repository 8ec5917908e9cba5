//go:build unix

package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"golang.org/x/term"
)

// TestAsk on a real terminal, which answers, or does not.
func TestAsk(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"\x1b_Gi=31;OK\x1b\\\x1b[?62;4c", ""} {
		screen, held, err := pty.Open()
		require.NoError(t, err)
		t.Cleanup(func() { _, _ = screen.Close(), held.Close() })
		// As askTerminal opens it.
		tty, err := os.OpenFile(held.Name(), os.O_RDWR, 0)
		require.NoError(t, err)
		t.Cleanup(func() { _ = tty.Close() })
		before, err := term.GetState(int(held.Fd()))
		require.NoError(t, err)
		asked := make(chan string, 1)
		go func() {
			buffer := make([]byte, 100)
			n, _ := screen.Read(buffer)
			asked <- string(buffer[:n])
			for _, part := range strings.SplitAfter(answer, "\\") {
				_, _ = screen.WriteString(part)
			}
		}()
		within := 30 * time.Second
		if answer == "" {
			within = 5 * time.Second // it is asked within that, too, if this process pauses
		}
		began := time.Now()
		require.Equal(t, answer, ask(tty, pictureQuery, within))
		require.Less(t, time.Since(began), 20*time.Second)
		require.Equal(t, pictureQuery, <-asked, "nothing in between makes lines of it")
		after, err := term.GetState(int(held.Fd()))
		require.NoError(t, err)
		require.Equal(t, before, after)
	}
}

// TestAskTerminal in a process that has a terminal, and in one that has none.
func TestAskTerminal(t *testing.T) {
	t.Parallel()
	asking := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), askingVar+"=1")
		return cmd
	}
	const answer = "\x1b[?62;4c"
	cmd := asking()
	screen, err := pty.Start(cmd)
	require.NoError(t, err)
	defer func() { _ = screen.Close() }()
	query := make([]byte, len(pictureQuery))
	_, err = io.ReadFull(screen, query)
	require.NoError(t, err)
	require.Equal(t, pictureQuery, string(query))
	_, err = screen.WriteString(answer)
	require.NoError(t, err)
	said, err := bufio.NewReader(screen).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("answer %q", answer), strings.TrimSpace(said))
	require.NoError(t, cmd.Wait())

	cmd = asking()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, "answer \"\"\n", string(out))
}
