// Command table runs the tests of every row of docs/faults.md and prints a table of them. FAULTS_RUNS says how often
// (once otherwise); arguments choose rows: F3 F12. It needs what scripts/test.sh prepares (see make faults).
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

const module = "github.com/comfyd/comfyd/"

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// outcome is what became of a test over all runs.
type outcome struct {
	pass, fail, skip int
	seconds          float64
	recovery         []string
}

func main() {
	runs := 1
	if s := os.Getenv("FAULTS_RUNS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "FAULTS_RUNS=%q is not allowed: a number from 1 on\n", s)
			os.Exit(2)
		}
		runs = n
	}
	chosen := rows
	if len(os.Args) > 1 {
		chosen = slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return !slices.Contains(os.Args[1:], r.id) })
	}
	t := &table{outcomes: map[string]*outcome{}}
	began := time.Now()
	for n := range runs {
		if runs > 1 {
			fmt.Printf("== run %d of %d\n", n+1, runs)
		}
		for pkg, pattern := range patterns(chosen) {
			if err := t.run(pkg, pattern); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", pkg, err)
				t.broken++
			}
		}
	}
	passed, failed := t.print(chosen, runs)
	fmt.Printf("\n%d runs in %s\n%d passed, %d failed\n", runs, time.Since(began).Round(time.Second), passed, failed+t.broken)
	if failed+t.broken > 0 {
		os.Exit(1)
	}
}

// patterns are what go test -run takes, by package.
func patterns(chosen []row) map[string]string {
	names := map[string][]string{}
	for _, r := range chosen {
		names["faults"] = append(names["faults"], r.ours...)
		for pkg, tests := range r.others {
			for _, name := range tests {
				names[pkg] = append(names[pkg], name+"$")
			}
		}
	}
	out := map[string]string{}
	for pkg, all := range names {
		if len(all) > 0 {
			out[pkg] = "^(" + strings.Join(all, "|") + ")"
		}
	}
	return out
}

type table struct {
	outcomes map[string]*outcome // by package and top-level test
	broken   int                 // packages that did not build or broke off
}

func (t *table) run(pkg, pattern string) error {
	cmd := exec.Command("go", "test", "-json", "-count=1", "-timeout=60m", "-run", pattern, "./"+pkg)
	cmd.Env = append(os.Environ(), "COMFYD_TEST_FAULTS=1") // internal/cluster in its long form
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	failures, err := t.read(out)
	if after := cmd.Wait(); after != nil && failures == 0 {
		return after
	}
	return err
}

// read takes the events of one package, prints each test's end as it comes, and returns how many failed.
func (t *table) read(r io.Reader) (failures int, err error) {
	said := map[string][]string{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return failures, fmt.Errorf("go test wrote %q: %w", lines.Text(), err)
		}
		top, _, sub := strings.Cut(e.Test, "/")
		if top == "" {
			continue
		}
		id := strings.TrimPrefix(e.Package, module) + "." + top
		o := t.outcomes[id]
		if o == nil {
			o = &outcome{}
			t.outcomes[id] = o
		}
		switch {
		case e.Action == "output":
			said[top] = append(said[top], e.Output)
			if _, text, ok := strings.Cut(e.Output, "RECOVERY "); ok {
				o.recovery = append(o.recovery, strings.TrimSpace(text))
			}
		case sub:
		case e.Action == "pass":
			o.pass++
		case e.Action == "fail":
			o.fail++
			failures++
			fmt.Print(strings.Join(said[top], ""))
		case e.Action == "skip":
			o.skip++
			fmt.Print(strings.Join(said[top], ""))
		}
		if !sub && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip") {
			o.seconds = max(o.seconds, e.Elapsed)
			fmt.Printf("%-4s %s (%.0f s)\n", e.Action, id, e.Elapsed)
		}
	}
	return failures, lines.Err()
}

// print writes the table as Markdown. A row passes when it has tests, and all of them have passed in every run.
func (t *table) print(chosen []row, runs int) (passed, failed int) {
	fmt.Print("\n| row | fault | tests | result | seconds |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range chosen {
		var names []string
		var seconds float64
		bad, none := 0, 0
		for _, id := range slices.Sorted(maps.Keys(t.outcomes)) {
			if !r.has(id) {
				continue
			}
			o := t.outcomes[id]
			names = append(names, "`"+id+"`")
			seconds += o.seconds
			bad += runs - o.pass
			none += o.skip
		}
		result := fmt.Sprintf("passed %d of %d runs", runs, runs)
		switch {
		case len(names) == 0:
			result = "no test has run"
			failed++
		case none > 0:
			result = fmt.Sprintf("skipped %d times: something that it needs is not there", none)
			failed++
		case bad > 0:
			result = fmt.Sprintf("failed %d times in %d runs", bad, runs)
			failed++
		default:
			passed++
		}
		fmt.Printf("| %s | %s | %s | %s | %.0f |\n", r.id, r.fault, strings.Join(names, ", "), result, seconds)
	}
	fmt.Print("\nRecovery, seconds after the fault:\n\n")
	for _, id := range slices.Sorted(maps.Keys(t.outcomes)) {
		recovered := t.outcomes[id].recovery
		slices.Sort(recovered)
		for _, text := range recovered {
			fmt.Printf("- %s\n", text)
		}
	}
	return passed, failed
}

// has tells whether a test, by package and name, is one of the row's.
func (r row) has(id string) bool {
	pkg, name, _ := strings.Cut(id, ".")
	if pkg == "faults" {
		return slices.ContainsFunc(r.ours, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	return slices.Contains(r.others[pkg], name)
}
