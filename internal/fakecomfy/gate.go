package fakecomfy

import (
	"sync"
	"testing"
	"time"
)

// Gate holds something up until it is opened.
type Gate struct {
	reached chan struct{}
	open    chan struct{}
	once    sync.Once
	first   sync.Once
	tb      testing.TB
}

func newGate(tb testing.TB) *Gate {
	return &Gate{reached: make(chan struct{}), open: make(chan struct{}), tb: tb}
}

// patience is how long what must come is waited for: a machine may be slow, or stop for seconds.
const patience = 2 * time.Minute

// Reached waits until something stands at the gate. It ends the test where nothing comes.
func (g *Gate) Reached() {
	g.tb.Helper()
	select {
	case <-g.reached:
	case <-time.After(patience):
		g.tb.Fatalf("fakecomfy: nothing came to the gate for %s", patience)
	}
}

// Open lets what stands there pass, and all that comes later.
func (g *Gate) Open() {
	if g != nil {
		g.once.Do(func() { close(g.open) })
	}
}

func (g *Gate) pass(stop <-chan struct{}) {
	if g == nil {
		return
	}
	g.first.Do(func() { close(g.reached) })
	select {
	case <-g.open:
	case <-stop:
	}
}
