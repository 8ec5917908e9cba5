package fakemodal

import (
	"net"
	"sync"
)

// gate is a listener that can be shut while it stays open: then every connection is dropped, the new ones too.
type gate struct {
	net.Listener
	mu    sync.Mutex
	fault *Fault // set while it is shut
	conns map[*gated]bool
}

type gated struct {
	net.Conn
	gate *gate
}

func newGate(l net.Listener) *gate { return &gate{Listener: l, conns: map[*gated]bool{}} }

func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g.mu.Lock()
		if g.fault == nil {
			conn := &gated{Conn: c, gate: g}
			g.conns[conn] = true
			g.mu.Unlock()
			return conn, nil
		}
		g.fault.fire()
		g.mu.Unlock()
		_ = c.Close()
	}
}

// shut drops what is connected, and whatever connects until open.
func (g *gate) shut(f *Fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fault = f
	for c := range g.conns {
		f.fire()
		_ = c.Conn.Close()
	}
	clear(g.conns)
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fault = nil
}

func (c *gated) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
