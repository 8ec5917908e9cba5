package faults

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// link is a network between two processes: it can fall silent, break, and heal.
type link struct {
	t      *testing.T
	addr   string
	target string

	mu       sync.Mutex
	change   *sync.Cond
	listener net.Listener
	silent   bool
	closed   bool
	conns    map[net.Conn]bool
	broken   int // connections that were cut
	held     int // pieces that came while it was silent
	wait     sync.WaitGroup
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	l := &link{t: t, target: target, addr: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	l.change = sync.NewCond(&l.mu)
	l.listen()
	t.Cleanup(func() {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		l.cut()
		l.wait.Wait()
	})
	return l
}

func (l *link) listen() {
	listener, err := net.Listen("tcp", l.addr)
	require.NoError(l.t, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener, l.addr = listener, listener.Addr().String()
	l.wait.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			l.wait.Go(func() { l.join(c) })
		}
	})
}

// join carries one connection.
func (l *link) join(c net.Conn) {
	defer c.Close()
	if !l.pass() {
		return
	}
	up, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer up.Close()
	l.mu.Lock()
	l.conns[c], l.conns[up] = true, true
	l.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { l.carry(up, c) })
	both.Go(func() { l.carry(c, up) })
	both.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	delete(l.conns, up)
}

func (l *link) carry(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !l.pass() {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits while the link is silent; false where it is broken by then.
func (l *link) pass() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent {
		l.held++
	}
	for l.silent && l.listener != nil {
		l.change.Wait()
	}
	return l.listener != nil
}

// stall lets nothing through any more; nobody is told.
func (l *link) stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = true
}

// cut breaks every connection and refuses new ones.
func (l *link) cut() {
	l.mu.Lock()
	listener := l.listener
	l.listener = nil
	for c := range l.conns {
		c.Close()
		l.broken++
	}
	l.change.Broadcast()
	l.mu.Unlock()
	if listener != nil {
		listener.Close()
	}
}

// heal makes it whole again.
func (l *link) heal() {
	l.mu.Lock()
	l.silent = false
	l.change.Broadcast()
	again := l.listener == nil && !l.closed
	l.mu.Unlock()
	if again {
		l.listen()
	}
}

// hit tells whether the fault has met anybody.
func (l *link) hit() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken > 0 || l.held > 0
}
