// Package outbound calls addresses that clients have named: receivers of webhooks, and inputs. Whatever a name resolves to,
// and wherever a redirect leads, an address that is not on the public internet is refused when it is dialled.
package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

const (
	maxRedirects = 5
	dialTimeout  = 10 * time.Second
	idleTimeout  = 30 * time.Second
)

// ErrForbidden says that an address may not be called.
var ErrForbidden = errors.New("only https addresses on the public internet may be called, and the networks that COMFYD_PRIVATE_NETWORKS names")

// ErrRedirects says that redirects did not end.
var ErrRedirects = fmt.Errorf("more than %d redirects", maxRedirects)

// Caller calls what clients have named.
type Caller struct {
	allowed  []netip.Prefix
	guardian *ssrf.Guardian
}

// New makes a Caller. Allowed are networks that may be called although they are private, and there by plain http, too.
func New(allowed []netip.Prefix) *Caller {
	var v4, v6 []netip.Prefix
	for _, p := range allowed {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return &Caller{allowed: allowed, guardian: ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))}
}

// Check refuses an address that could never be called, without asking any name server: the error says why.
func (c *Caller) Check(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("it cannot be read as a URL")
	case u.Host == "" || u.Hostname() == "":
		return errors.New("it names no host")
	case u.User != nil:
		return errors.New("it carries a user name or a password, which would be stored with the job")
	case u.Scheme != "https" && (u.Scheme != "http" || len(c.allowed) == 0):
		return fmt.Errorf("its scheme is %q: %w", u.Scheme, ErrForbidden)
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return nil // a name: what it means is seen when it is dialled
	}
	if u.Scheme == "http" {
		return c.private(addr)
	}
	return c.safe(addr)
}

// Client makes a client. It follows redirects where follow is set, keeps few connections, and asks no proxy: one would dial
// in its place.
func (c *Caller) Client(follow bool) *http.Client {
	redirects := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if follow {
		redirects = func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return ErrRedirects
			}
			r.Header.Del("Referer") // the whole address before, whose query may be a signature
			return c.Check(r.URL.String())
		}
	}
	return &http.Client{Transport: schemes{"https": transport(c.safe), "http": transport(c.private)}, CheckRedirect: redirects}
}

// safe allows public addresses, and the networks that are allowed besides.
func (c *Caller) safe(addr netip.Addr) error {
	addr = addr.Unmap()
	network := "tcp6"
	if addr.Is4() {
		network = "tcp4"
	}
	if err := c.guardian.Safe(network, netip.AddrPortFrom(addr, 443).String(), nil); err != nil {
		return fmt.Errorf("%s is not a public address: %w", addr, ErrForbidden)
	}
	return nil
}

// private allows nothing but the networks that are allowed although they are private.
func (c *Caller) private(addr netip.Addr) error {
	if slices.ContainsFunc(c.allowed, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) }) {
		return nil
	}
	return fmt.Errorf("%s is called by plain http: %w", addr, ErrForbidden)
}

func transport(allows func(netip.Addr) error) *http.Transport {
	d := &net.Dialer{Timeout: dialTimeout, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%s: %w", address, ErrForbidden)
		}
		return allows(to.Addr().WithZone(""))
	}}
	return &http.Transport{
		DialContext: d.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout,
		MaxIdleConns: 16, IdleConnTimeout: idleTimeout, DisableCompression: true,
	}
}

// schemes sends each request to the transport of its scheme.
type schemes map[string]*http.Transport

func (s schemes) RoundTrip(r *http.Request) (*http.Response, error) {
	t := s[r.URL.Scheme]
	if t == nil {
		return nil, fmt.Errorf("scheme %q: %w", r.URL.Scheme, ErrForbidden)
	}
	return t.RoundTrip(r)
}

// CloseIdleConnections implements what [http.Client.CloseIdleConnections] asks for.
func (s schemes) CloseIdleConnections() {
	for _, t := range s {
		t.CloseIdleConnections()
	}
}
