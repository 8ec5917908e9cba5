package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
)

// The table stands between these lines of docs/performance.md.
const (
	tableBegins = "<!-- the table of make bench begins -->\n"
	tableEnds   = "<!-- the table of make bench ends -->\n"
)

// print writes the table for a terminal.
func (r *results) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := ""
	for _, l := range r.Lines {
		if l.Row != row {
			row = l.Row
			fmt.Fprintf(tw, "\n%s: %s\t", l.Row, l.Title)
			for _, s := range r.Systems {
				fmt.Fprintf(tw, "%s\t", s.Title)
			}
			fmt.Fprintln(tw)
		}
		fmt.Fprintf(tw, "  %s\t", l.name())
		for _, s := range r.Systems {
			fmt.Fprintf(tw, "%s\t", l.cell(s.Name))
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, text := range r.wrong() {
		fmt.Fprintln(w, "!", text)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.about())
	return err
}

// markdown is the same for docs/performance.md.
func (r *results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.about())
	row := ""
	for _, l := range r.Lines {
		if l.Row != row {
			row = l.Row
			fmt.Fprintf(&b, "\n**%s** (`%s`)\n\n| |", l.Title, l.Row)
			for _, s := range r.Systems {
				fmt.Fprintf(&b, " %s |", s.Title)
			}
			fmt.Fprintf(&b, "\n| --- |%s\n", strings.Repeat(" --- |", len(r.Systems)))
		}
		fmt.Fprintf(&b, "| %s |", l.name())
		for _, s := range r.Systems {
			fmt.Fprintf(&b, " %s |", l.cell(s.Name))
		}
		b.WriteString("\n")
	}
	if len(r.Faults) > 0 {
		b.WriteString("\nWhat must not be, and was:\n\n")
	}
	for _, text := range r.wrong() {
		fmt.Fprintf(&b, "- %s\n", text)
	}
	return b.String()
}

// wrong are the faults, those of one row and system together.
func (r *results) wrong() []string {
	type key struct{ row, system string }
	firsts, times := []fault{}, map[key]int{}
	for _, f := range r.Faults {
		k := key{f.Row, f.System}
		if times[k]++; times[k] == 1 {
			firsts = append(firsts, f)
		}
	}
	var all []string
	for _, f := range firsts {
		text := f.String()
		if n := times[key{f.Row, f.System}]; n > 1 {
			text += fmt.Sprintf(" (and %d more)", n-1)
		}
		all = append(all, text)
	}
	return all
}

// about says where and when the figures were taken.
func (r *results) about() string {
	least, most := r.loads()
	var versions []string
	for _, name := range []string{"comfyd", "ComfyUI", "torch", "comfy-api-proxy", "Go"} {
		if v := r.Versions[name]; v != "" {
			versions = append(versions, name+" "+v)
		}
	}
	return fmt.Sprintf("Taken from %s to %s, %d run(s), on %s; load average %.1f to %.1f. %s. A cell is the median of the runs [least to most] and its ratio to %s.",
		r.Began, r.Ended, r.Runs, r.Machine, least, most, strings.Join(versions, ", "), r.Systems[0].Title)
}

func (l line) name() string {
	if l.Unit == "" {
		return l.Metric
	}
	return l.Metric + ", " + l.Unit
}

func (l line) cell(system string) string {
	s, there := l.Systems[system]
	if !there {
		return "-"
	}
	text := figure(s.Median)
	if s.Min != s.Max {
		text += fmt.Sprintf(" [%s to %s]", figure(s.Min), figure(s.Max))
	}
	if s.Ratio > 0 {
		text += fmt.Sprintf(" x%s", figure(s.Ratio))
	}
	return text
}

// figure writes a number with three digits that count, or all before the point.
func figure(v float64) string {
	digits := 0
	if v != 0 {
		digits = max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	}
	return strconv.FormatFloat(v, 'f', min(digits, 3), 64)
}

// picture is what scripts/bench.sh draws beside the page.
const picture = "![The figures that say most, as bars](performance.svg)"

// document puts the table into the page, in place of the one before.
func (r *results) document(page string) error {
	raw, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, begins := bytes.Cut(raw, []byte(tableBegins))
	_, after, ends := bytes.Cut(rest, []byte(tableEnds))
	if !begins || !ends {
		return fmt.Errorf("%s lacks the lines between which the table stands: %s... %s", page, tableBegins, tableEnds)
	}
	out := string(before) + tableBegins + "\n" + picture + "\n\n" + r.markdown() + "\n" + tableEnds + string(after)
	return os.WriteFile(page, []byte(out), 0o644)
}
