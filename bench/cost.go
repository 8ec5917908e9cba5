package main

import (
	"context"
	"fmt"
	"time"
)

// costs are what processes have used up while something ran.
type costs struct {
	names           []string
	cpu             map[string]time.Duration // by the name of the process
	own             time.Duration            // of all processes of the system
	comfyui, client time.Duration
}

// cost measures f. It waits for what the jobs leave to do, which is part of their price.
func (b *bench) cost(ctx context.Context, s *system, f func() error) (costs, error) {
	before, err := b.used(s)
	if err != nil {
		return costs{}, err
	}
	if err := f(); err != nil {
		return costs{}, err
	}
	client := ownCPU() - before.client
	if err := b.settle(ctx, []*system{s}); err != nil {
		return costs{}, err
	}
	c, err := b.used(s)
	if err != nil {
		return costs{}, err
	}
	for name := range c.cpu {
		c.cpu[name] -= before.cpu[name]
	}
	c.own -= before.own
	c.comfyui -= before.comfyui
	c.client = client
	return c, nil
}

func (b *bench) used(s *system) (c costs, err error) {
	c = costs{cpu: map[string]time.Duration{}, client: ownCPU()}
	for _, p := range s.processes {
		cpu, err := p.cpu()
		if err != nil {
			return c, fmt.Errorf("%w: %w", errNotLinux, err)
		}
		if _, there := c.cpu[p.name]; !there {
			c.names = append(c.names, p.name)
		}
		c.cpu[p.name] += cpu
		c.own += cpu
	}
	c.comfyui, err = b.comfy.process().cpu()
	return c, err
}

// addCosts notes what one of n jobs, or polls, cost. A system of several processes has a line for each.
func (b *bench) addCosts(s *system, what, unit string, c costs, n int) {
	one := func(d time.Duration) float64 {
		if unit == "µs" {
			return ms(d) * 1000 / float64(n)
		}
		return ms(d) / float64(n)
	}
	if len(c.names) > 0 {
		b.add(s, "CPU per "+what, unit, one(c.own))
	}
	if len(c.names) > 1 {
		for _, name := range c.names {
			b.add(s, "CPU per "+what+": "+name, unit, one(c.cpu[name]))
		}
	}
	b.add(s, "CPU per "+what+": ComfyUI", unit, one(c.comfyui))
	b.add(s, "CPU per "+what+": the bench itself", unit, one(c.client))
}

// memory is what the system's processes hold, in MiB, in all and by name.
func (s *system) memory() (all float64, names []string, by map[string]float64, err error) {
	by = map[string]float64{}
	for _, p := range s.processes {
		n, err := p.memory()
		if err != nil {
			return 0, nil, nil, fmt.Errorf("%w: %w", errNotLinux, err)
		}
		if _, there := by[p.name]; !there {
			names = append(names, p.name)
		}
		by[p.name] += mib(n)
		all += mib(n)
	}
	return all, names, by, nil
}

// most is how much memory the system's processes have taken at their highest while f ran, each by itself, and before, in
// MiB.
func (s *system) most(f func() error) (before, peak float64, err error) {
	sum := func(name string) (total float64, err error) {
		for _, p := range s.processes {
			n, err := field(p.pid, "status", name)
			if err != nil {
				return 0, fmt.Errorf("%w: %w", errNotLinux, err)
			}
			total += mib(n)
		}
		return total, nil
	}
	if before, err = sum("VmRSS:"); err != nil {
		return 0, 0, err
	}
	for _, p := range s.processes {
		if err := p.forgetPeak(); err != nil {
			return 0, 0, err
		}
	}
	if err := f(); err != nil {
		return 0, 0, err
	}
	peak, err = sum("VmHWM:")
	return before, peak, err
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
