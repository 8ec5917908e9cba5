package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"

	"github.com/schollz/progressbar/v3"

	"github.com/comfyd/comfyd/client"
)

// screen is where a person follows a job: a bar on a terminal, otherwise a line whenever something changes.
type screen struct {
	w   io.Writer
	bar *progressbar.ProgressBar // nil where no bar is shown

	mu   sync.Mutex
	live bool // the bar stands on the last line
	last string
}

func newScreen(env Env) *screen {
	s := &screen{w: env.Err}
	if env.IsTerminal(env.Err) && env.Getenv("TERM") != "dumb" {
		s.bar = progressbar.NewOptions(100, progressbar.OptionSetWriter(env.Err), progressbar.OptionSetWidth(24),
			progressbar.OptionSetPredictTime(false), progressbar.OptionShowDescriptionAtLineEnd(),
			progressbar.OptionSetElapsedTime(true), progressbar.OptionClearOnFinish())
	}
	return s
}

// say prints one message, once for as long as nothing else is said.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line(fmt.Sprintf(format, args...))
}

func (s *screen) line(text string) {
	if text == s.last {
		return
	}
	s.last = text
	s.wipe()
	_, _ = fmt.Fprintln(s.w, printable(text))
}

// show shows how a job is.
func (s *screen) show(st client.Status, g graph) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := describe(st, g)
	if s.bar == nil {
		s.line(text)
		return
	}
	percent := 0
	if st.Progress != nil {
		// At 100 the bar would end; the job ends when it is collected.
		percent = min(max(int(st.Progress.Value*100), 0), 99)
	}
	_ = s.bar.Set(percent)
	s.bar.Describe(short(printable(text+steps(st)), 64)) // draws
	s.live = true
}

// wipe takes the bar off the screen.
func (s *screen) wipe() {
	if s.live {
		_ = s.bar.Clear()
		s.live = false
	}
}

// end leaves the screen to others.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
}

// describe says where a job is, but for what changes all the time.
func describe(st client.Status, g graph) string {
	text := string(st.Phase)
	if text == "" {
		text = strings.ToLower(string(st.State))
	}
	switch p := st.Progress; {
	case st.QueuePosition != nil:
		text += fmt.Sprintf(", %d before it", *st.QueuePosition)
	case p != nil && p.CurrentNode != "":
		text += fmt.Sprintf(": %s, %d/%d nodes", short(g.title(p.CurrentNode), 40), p.NodesDone, p.NodesTotal)
	}
	return text
}

func steps(st client.Status) string {
	if st.Progress == nil || st.Progress.Steps == 0 {
		return ""
	}
	return fmt.Sprintf(", step %d/%d", st.Progress.Step, st.Progress.Steps)
}

// printable keeps what came from elsewhere from steering the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}

// short cuts text to n characters.
func short(text string, n int) string {
	if r := []rune(text); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return text
}
