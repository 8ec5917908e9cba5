//go:build !noembedded

package embedded

import (
	"errors"
	"net"
	"strconv"
	"syscall"
)

const loopback = "127.0.0.1"

// bind listens on an address that a person chose, so that a taken port is an error and not what the server makes of
// it: a fatal log line, then a nil pointer.
func bind(address, setting string) (*net.TCPListener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fail(AddressTaken, err, "%s is in use by another program: stop that program, or set %s to another address", address, setting)
	case err != nil:
		return nil, fail(AddressTaken, err, "cannot listen on %s: %v: set %s to another address", address, err, setting)
	}
	return l.(*net.TCPListener), nil
}

// reserve picks n free loopback ports for the services behind the frontend.
//
// The server opens its listeners itself, from port numbers, so a port has to be let go before it is taken, and
// another process could get it in between. Two things make that unlikely: all n are held until all are known, and each
// has had a connection that was closed from this side. That leaves it in TIME_WAIT, during which Linux does not give
// the port to anyone who asks for any free port (which is what a second comfyd does), while an explicit listen on it
// succeeds. Should it happen all the same, Start fails with an error and nothing else.
func reserve(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			return nil, fail(AddressTaken, err, "cannot find a free port on %s: %v", loopback, err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
		if err := leaveTimeWait(l); err != nil {
			return nil, fail(AddressTaken, err, "cannot reserve port %d on %s: %v", ports[i], loopback, err)
		}
	}
	return ports, nil
}

func leaveTimeWait(l net.Listener) error {
	there, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer there.Close()
	here, err := l.Accept()
	if err != nil {
		return err
	}
	return here.Close()
}

// reachable is the address under which this process dials a listener, which may listen on all interfaces.
func reachable(a *net.TCPAddr) string {
	ip := a.IP
	if ip.IsUnspecified() {
		ip = net.ParseIP(loopback)
	}
	return net.JoinHostPort(ip.String(), strconv.Itoa(a.Port))
}
