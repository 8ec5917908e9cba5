package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
)

// follower goes with one job to its end.
type follower struct {
	env    Env
	server *server
	client *client.Client
	screen *screen
	graph  graph
	out    string // where to write; empty for nowhere
	// gallery shows pictures that were written; nil for none.
	gallery *gallery
	// pathsOnly leaves everything but paths to standard error.
	pathsOnly bool
	// events prints each event as a line of JSON.
	events bool
	// mayCancel says that Ctrl-C is about the job too; cancel, that nobody is asked.
	mayCancel, cancel bool
}

// wait waits for the end and finishes.
func (f *follower) wait(ctx context.Context, id string) error {
	var printed error
	st, err := f.client.Follow(ctx, id, func(e client.Event) {
		if e.Status != nil && !f.events {
			f.screen.show(*e.Status, f.graph)
		}
		if f.events && e.Kind != client.EventPreview && printed == nil {
			printed = printJSON(f.env.Out, eventLine{Event: e.Kind, ID: id, Status: e.Status, List: e.List, Output: e.Output, Text: e.Text})
		}
	})
	f.screen.end()
	switch {
	case printed != nil:
		return printed
	case err != nil && ctx.Err() != nil:
		return f.interrupted(ctx, id)
	case err != nil:
		return explain(err, f.graph)
	}
	return f.finish(ctx, st)
}

// finish writes what a job has made, prints, and returns a failed job's reason.
func (f *follower) finish(ctx context.Context, st client.Status) error {
	var saved []client.Saved
	var err error
	if f.out != "" {
		saved, err = f.client.Save(ctx, st, f.out)
	}
	if perr := f.print(st, saved); perr != nil {
		return perr
	}
	if perr := f.gallery.showSaved(f.env, saved); perr != nil {
		return perr
	}
	switch {
	case err != nil && ctx.Err() != nil:
		f.screen.say("the job is done; to get its files:\n  %s", f.goOn(st.ID))
		return errInterrupted
	case err != nil:
		return fmt.Errorf("job %s is %s, but not all of its files are here: %w", st.ID, st.State, err)
	}
	return explain(st.Err(), f.graph)
}

func (f *follower) print(st client.Status, saved []client.Saved) error {
	if f.events {
		st = withoutData(st)
		return printJSON(f.env.Out, eventLine{Event: client.EventDone, ID: st.ID, Status: &st, Saved: saved})
	}
	if f.server.json {
		return printJSON(f.env.Out, report{withoutData(st), saved})
	}
	var b strings.Builder
	switch {
	case st.State == comfy.Failed:
	case !f.pathsOnly:
		fmt.Fprintf(&b, "%s %s\n", st.ID, summary(st, f.graph))
	case st.Ended():
		f.screen.say("%s", summary(st, f.graph))
	}
	if f.out == "" && st.Output != nil {
		for _, o := range slices.Concat(st.Output.Images, st.Output.Files) {
			fmt.Fprintf(&b, "  %s (node %s, %s)\n", o.Filename, o.NodeID, humanize.IBytes(uint64(max(o.SizeBytes, 0))))
		}
		for _, t := range st.Output.Texts {
			text := strings.ReplaceAll(t.Text, "\n", " ")
			if t.URL != "" {
				text = "(" + humanize.IBytes(uint64(max(t.SizeBytes, 0))) + ")"
			}
			fmt.Fprintf(&b, "  text of node %s: %s\n", t.NodeID, short(text, 100))
		}
	}
	for _, s := range saved {
		fmt.Fprintln(&b, s.Path)
	}
	_, err := io.WriteString(f.env.Out, printable(b.String()))
	return err
}

// summary says in one line how a job is.
func summary(st client.Status, g graph) string {
	if !st.Ended() {
		return string(st.State) + " " + describe(st, g) + steps(st)
	}
	text := string(st.State)
	if m := st.Metrics; m != nil {
		text += fmt.Sprintf(" in %v", time.Duration(m.TotalMS)*time.Millisecond)
	}
	if st.Cached {
		text += ", from ComfyUI's cache"
	}
	return text
}

// report is what --json prints of a job.
type report struct {
	client.Status
	Saved []client.Saved `json:"saved,omitempty"`
}

// withoutData leaves the base64 out.
func withoutData(st client.Status) client.Status {
	if st.Output == nil {
		return st
	}
	o := *st.Output
	for _, list := range []*[]client.Output{&o.Images, &o.Files} {
		*list = append([]client.Output{}, *list...)
		for i := range *list {
			(*list)[i].Data = ""
		}
	}
	st.Output = &o
	return st
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// cancelTime bounds the cancel that follows a Ctrl-C.
const cancelTime = 10 * time.Second

// interrupted is what follows a Ctrl-C.
func (f *follower) interrupted(ctx context.Context, id string) error {
	if !f.mayCancel || !f.cancel && !f.env.confirm("cancel the job too?") {
		f.screen.say("job %s goes on; to wait for it again and get its files:\n  %s", id, f.goOn(id))
		return errInterrupted
	}
	later, done := f.env.grace(ctx, f.env.cancelTime)
	defer done()
	st, err := f.client.Cancel(later, id)
	switch {
	case err != nil:
		return fmt.Errorf("%w, but the job may go on: %w; try: comfyd cancel %s", errInterrupted, err, id)
	case st.Ended():
		f.screen.say("job %s had ended already: %s", id, st.State)
	default:
		f.screen.say("job %s is being canceled", id)
	}
	return errInterrupted
}

// goOn is the command that takes up where this one stopped.
func (f *follower) goOn(id string) string {
	command := fmt.Sprintf("comfyd status %s --wait --out %q", id, first(f.out, "."))
	if f.server.url != "" {
		command += fmt.Sprintf(" --url %q", f.server.url)
	}
	return command
}

// confirm asks on a terminal; anything but yes, another Ctrl-C too, is a no.
func (e Env) confirm(question string) bool {
	if !e.IsTerminal(e.In) {
		return false
	}
	_, _ = fmt.Fprintf(e.Err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(e.In).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case a := <-answer:
		return a == "y" || a == "yes"
	case <-e.again:
		_, _ = fmt.Fprintln(e.Err)
		return false
	}
}

// grace returns a context that outlives ctx by d, but not another Ctrl-C.
func (e Env) grace(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer cancel()
		select {
		case <-later.Done():
			return
		case <-ctx.Done():
		}
		end := time.NewTimer(d)
		defer end.Stop()
		select {
		case <-later.Done():
		case <-e.again:
		case <-end.C:
		}
	}()
	return later, cancel
}
