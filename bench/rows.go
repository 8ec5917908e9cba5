package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// rows are all rows, in the order in which a run measures them: what wants systems that have done nothing yet comes first.
var rows = []row{
	{"start", "Start to ready", startRow},
	{"idle", "At rest, before the first job", idleRow},
	{"growth", "Growth: jobs in the queue, then in the history", growthRow},
	{"tiny", "A tiny job (64x64, one colour), from submission to its image in hand", tinyRow},
	{"floor", "Temporal alone: a workflow of one activity that does nothing", floorRow},
	{"submit", "Submissions of one client, one after the other, while the jobs run", submitRow},
	{"burst", "A burst over 16 connections, until all images are in hand", burstRow},
	{"big", "A larger burst", bigRow},
	{"polls-done", "Polls of a finished small job over 16 connections", pollsDoneRow},
	{"polls-running", "Polls of a running job over 16 connections", pollsRunningRow},
	{"noise", "Images of noise, which no PNG makes smaller", noiseRow},
	{"gap", "The GPU idle between two queued jobs of 100 ms", gapRow},
	{"hold", "Connections that hold with ?wait=60", holdRow},
	{"after", "At rest, after all of this", afterRow},
}

// choose takes rows by name, all where none is given.
func choose(names string) ([]row, error) {
	if names == "" {
		return rows, nil
	}
	var chosen []row
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(rows, func(r row) bool { return r.id == name })
		if i < 0 {
			var all []string
			for _, r := range rows {
				all = append(all, r.id)
			}
			return nil, fmt.Errorf("no row is called %q; there are %s", name, strings.Join(all, ", "))
		}
		chosen = append(chosen, rows[i])
	}
	return chosen, nil
}

// startRow tells what was measured when the systems were started.
func startRow(_ context.Context, b *bench) error {
	for _, s := range b.systems {
		for _, st := range s.starts {
			b.add(s, st.what, "ms", ms(st.took))
		}
	}
	return nil
}

// idleRow measures all systems in the same seconds.
func idleRow(ctx context.Context, b *bench) error {
	if err := b.settle(ctx, b.systems); err != nil {
		return err
	}
	before := map[string]costs{}
	for _, s := range b.systems {
		used, err := b.used(s)
		if err != nil {
			return err
		}
		before[s.name] = used
	}
	if err := pause(ctx, b.Rest); err != nil {
		return err
	}
	for _, s := range b.systems {
		used, err := b.used(s)
		if err != nil {
			return err
		}
		if len(s.processes) == 0 {
			b.add(s, "CPU of ComfyUI", "% of a core", 100*(used.comfyui-before[s.name].comfyui).Seconds()/b.Rest.Seconds())
			continue
		}
		b.add(s, "CPU", "% of a core", 100*(used.own-before[s.name].own).Seconds()/b.Rest.Seconds())
	}
	return afterRow(ctx, b)
}

// afterRow measures memory.
func afterRow(_ context.Context, b *bench) error {
	for _, s := range b.systems {
		if len(s.processes) == 0 {
			n, err := b.comfy.process().memory()
			if err != nil {
				return err
			}
			b.add(s, "memory of ComfyUI", "MiB", mib(n))
			continue
		}
		all, names, by, err := s.memory()
		if err != nil {
			return err
		}
		b.add(s, "memory", "MiB", all)
		if len(names) > 1 {
			for _, name := range names {
				b.add(s, "memory: "+name, "MiB", by[name])
			}
		}
	}
	return nil
}
