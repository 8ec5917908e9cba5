package activities

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
)

// settleLook is how often a draining worker looks whether what has run there is collected.
const settleLook = 200 * time.Millisecond

// drain is what a worker that stops means to do with its prompts. By default it lets go of them at once: each runs on,
// and another worker follows it.
type drain struct {
	running atomic.Bool   // nothing new is placed here
	letGo   chan struct{} // closed: nothing is held any more
	release sync.Once     // closes it

	mu    sync.Mutex
	holds map[string]bool // the pools whose prompts are followed to their end
}

func newDrain() *drain { return &drain{letGo: make(chan struct{}), holds: map[string]bool{}} }

func (d *drain) holding(pool string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.holds[pool]
}

// Drain places no more jobs on this worker's pools: they go to those of others. The prompts of the pools that are named
// are followed to their end although their Temporal worker stops, until LetGo.
func (a *Activities) Drain(pools ...string) {
	d := a.drain
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range pools {
		d.holds[p] = true
	}
	d.running.Store(true)
}

// LetGo ends what Drain began: what still runs is left to others.
func (a *Activities) LetGo() {
	a.Drain()
	a.drain.release.Do(func() { close(a.drain.letGo) })
}

// Settle waits until the outputs of every prompt that has ended here are collected and their jobs closed, or ctx ends.
func (a *Activities) Settle(ctx context.Context) {
	look := time.NewTicker(settleLook)
	defer look.Stop()
	for a.janitor.uncollected() {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			a.janitor.sweep(ctx)
		}
	}
}

// stopping ends the wait of a prompt's activity for the stop of its worker: at once, or when a prompt that is held is let
// go of. It returns false where the prompt has ended first.
func (d *drain) stopping(ctx context.Context, pool string, ended <-chan struct{}) bool {
	select {
	case <-ended:
		return false
	case <-activity.GetWorkerStopChannel(ctx): // sooner than the context, which ends after the worker's patience
	}
	if !d.holding(pool) {
		return true
	}
	select {
	case <-ended:
		return false
	case <-d.letGo:
		return true
	}
}
