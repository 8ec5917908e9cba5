// Command bench measures comfyd beside ComfyUI itself and beside its peer: docs/performance.md. scripts/bench.sh (make
// bench) prepares what it needs and runs it.
//
// All systems are up at the same time, on one real ComfyUI, and take turns row by row, so that a noisy machine is noisy for
// all of them. It exits with 1 when a job was lost, ended falsely or brought wrong bytes at anything but the peer.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	programs
	quick         bool
	only, without string
	growth        string
	runs          int
	out, docs     string
	profiles      string
	seconds       int
	keep          bool
}

func parse() (o options) {
	flag.StringVar(&o.comfyui, "comfyui", "", "the folder of a ComfyUI (scripts/comfyui.sh)")
	flag.StringVar(&o.comfyd, "comfyd", "bin/comfyd", "the program to measure")
	flag.StringVar(&o.peer, "peer", "", "the program comfy-api-proxy")
	flag.BoolVar(&o.quick, "quick", false, "a little of each row, once: it shows that all works, its times say nothing")
	flag.StringVar(&o.only, "only", "", "rows, separated by commas; all otherwise")
	flag.StringVar(&o.without, "without", "", "systems to leave out: comfyd, production, peer")
	flag.StringVar(&o.growth, "growth", "", "sizes of the row growth, such as 1,10,100,1000,10000")
	flag.IntVar(&o.runs, "runs", 1, "how often everything is started anew and measured")
	flag.StringVar(&o.out, "out", "", "a file for the results as JSON")
	flag.StringVar(&o.docs, "docs", "", "the page whose table is written anew")
	flag.StringVar(&o.profiles, "profile", "", "a folder for profiles of comfyd, taken while each row is measured")
	flag.IntVar(&o.seconds, "profile-seconds", 10, "how many seconds of each row the profiles are of; a shorter row is waited out")
	flag.BoolVar(&o.keep, "keep", false, "keep the folder with all data and logs")
	flag.Parse()
	return o
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := measure(ctx, parse())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, o options) (err error) {
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	systems, err := systemsWithout(o.without)
	if err != nil {
		return err
	}
	b := &bench{scale: whole, programs: o.programs, out: &results{
		Began: now(), Machine: thisMachine(), Versions: versions(o.programs), Runs: o.runs}}
	if o.quick {
		b.scale = quick
	}
	if o.growth != "" {
		if b.Growth, err = sizes(o.growth); err != nil {
			return err
		}
	}
	b.out.Scale = b.scale
	for _, k := range systems {
		b.out.Systems = append(b.out.Systems, title{k.name, k.title})
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return err
		}
		b.profile, b.profiler = true, &profiler{dir: o.profiles, seconds: o.seconds}
	}
	dir, err := os.MkdirTemp("", "comfyd-bench")
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Fprintln(os.Stderr, "everything is kept in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL may run as another user
		return err
	}
	err = b.all(ctx, o.runs, systems, chosen, dir)
	return errors.Join(err, b.report(o)) // what there is, also where the rest could not be measured
}

// all starts everything anew for each run.
func (b *bench) all(ctx context.Context, runs int, systems []kind, chosen []row, dir string) (err error) {
	began := time.Now()
	if b.comfy, err = startComfyUI(ctx, b.comfyui, filepath.Join(dir, "comfyui")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.comfy.stop()) }()
	fmt.Fprintf(os.Stderr, "ComfyUI is up, %.1f s\n", time.Since(began).Seconds())
	for b.run = range runs {
		fmt.Fprintf(os.Stderr, "run %d of %d, load average %.1f\n", b.run+1, runs, load())
		here := filepath.Join(dir, fmt.Sprint(b.run))
		err := b.start(ctx, systems, here)
		if err == nil {
			err = b.rows(ctx, chosen)
		}
		if err = errors.Join(err, b.stop()); err != nil {
			return err
		}
	}
	return nil
}

// report writes what was found. It is an error where something must not be.
func (b *bench) report(o options) error {
	r := b.out
	r.Ended = now()
	r.conclude()
	if err := r.print(os.Stdout); err != nil {
		return err
	}
	if o.out != "" {
		if err := r.write(o.out); err != nil {
			return err
		}
	}
	if o.docs != "" {
		if err := r.document(o.docs); err != nil {
			return err
		}
	}
	bad := slices.DeleteFunc(slices.Clone(r.Faults), func(f fault) bool { return f.System == "peer" })
	if len(bad) > 0 {
		return fmt.Errorf("%d faults, the first: %s", len(bad), bad[0])
	}
	return nil
}

func systemsWithout(names string) ([]kind, error) {
	left := kinds()
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(left, func(k kind) bool { return k.name == name })
		switch {
		case name == "":
		case i < 1: // the first one is what the others are held against
			return nil, fmt.Errorf("--without=%s: it takes comfyd, production and peer", names)
		default:
			left = slices.Delete(left, i, i+1)
		}
	}
	return left, nil
}

func sizes(text string) (all []int, err error) {
	for s := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("--growth=%s: numbers of jobs, separated by commas", text)
		}
		all = append(all, n)
	}
	return all, nil
}

func now() string { return time.Now().UTC().Format("2006-01-02 15:04") + " UTC" }
