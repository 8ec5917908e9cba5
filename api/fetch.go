package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"
	"golang.org/x/sync/errgroup"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/outbound"
)

const (
	// fetchTimeout bounds what a request waits for the files that it names by URL, all together: many proxies end a request
	// after a minute, and so does our own client.
	fetchTimeout = 50 * time.Second
	// fetchSilence is how long a server may send nothing.
	fetchSilence = 10 * time.Second
	// fetchesAtOnce bounds those of a tenant in this process, so that none keeps the others waiting; fetchesOfOne those of
	// one request.
	fetchesAtOnce = 16
	fetchesOfOne  = 4
	maxURL        = 4 << 10 // bytes
)

var errSilent = errors.New("the server fell silent")

// fetcher gets the files that clients name by URL.
type fetcher struct {
	caller           *outbound.Caller
	client           *http.Client
	agent            string
	limit            int64 // bytes of all files of one request
	timeout, silence time.Duration

	mu      sync.Mutex
	tenants map[string]*fetches
}

// fetches bounds those of a tenant.
type fetches struct {
	slots   chan struct{} // held by those that are under way
	waiting *budget       // what requests hold in memory that wait for files: how long they do is up to others
}

func newFetcher(o *Options) *fetcher {
	return &fetcher{
		caller: o.Outbound, client: o.Outbound.Client(true), agent: "comfyd/" + o.Version, limit: o.BodyLimit,
		timeout: fetchTimeout, silence: fetchSilence, tenants: map[string]*fetches{},
	}
}

func (f *fetcher) of(tenant string) *fetches {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tenants[tenant] == nil {
		f.tenants[tenant] = &fetches{slots: make(chan struct{}, fetchesAtOnce), waiting: newBudget(f.limit)}
	}
	return f.tenants[tenant]
}

// url is the address at which the file is; empty where the field has its bytes, as base64 or as a data URI.
func (f *imageField) url() string {
	text := strings.TrimSpace(f.Image)
	scheme, _, ok := strings.Cut(text, "://")
	if !ok || scheme == "" || len(scheme) > 32 || strings.ContainsFunc(scheme, func(r rune) bool { return r > '~' || r <= ' ' || strings.ContainsRune(",;:=/", r) }) {
		return ""
	}
	return text
}

// check refuses an address that could never be fetched, without calling anybody.
func (f *fetcher) check(raw string) error {
	if len(raw) > maxURL {
		return failf(CodeLimitExceeded, "The URL has %d bytes; at most %d are allowed.", len(raw), maxURL)
	}
	if err := f.caller.Check(raw); err != nil {
		return failf(CodeInvalidInput, "%s cannot be fetched: %s.", withoutQuery(raw), err)
	}
	return nil
}

// withoutQuery is an address as answers show it: queries hold signatures and keys.
func withoutQuery(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "The URL"
	}
	return shorten((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String())
}

// fetchImages replaces the inputs that stand for URLs by the files that are there. holds is how many bytes the request keeps
// in memory meanwhile: its body is counted no more.
func (s *Server) fetchImages(tenant string, images []imageField, inputs []comfy.Input, holds int) error {
	if !slices.ContainsFunc(images, func(img imageField) bool { return img.url() != "" }) {
		return nil
	}
	waiting := s.fetcher.of(tenant).waiting
	if !waiting.take(int64(holds)) {
		return failf(CodeRateLimited, "Your requests that wait for files at URLs would be too large: the workflows of all of them may have %d bytes together (COMFYD_BODY_LIMIT). "+
			"Nothing was accepted; try again, or send the files to POST /inputs before.", waiting.max)
	}
	defer waiting.give(int64(holds))
	ctx, cancel := context.WithTimeout(s.life, s.fetcher.timeout)
	defer cancel()
	room := newBudget(s.fetcher.limit)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fetchesOfOne)
	for i, img := range images {
		if img.url() == "" {
			continue
		}
		group.Go(func() error {
			input, err := s.fetchImage(ctx, tenant, img, room)
			inputs[i] = input
			return ofImage(i, img.Name, err)
		})
	}
	return group.Wait()
}

// fetchImage moves the file at a URL to the store as it arrives. What the address answers may be nobody's to know, so the
// reasons are told in words of our own.
func (s *Server) fetchImage(ctx context.Context, tenant string, img imageField, room *budget) (comfy.Input, error) {
	f := s.fetcher
	slot := f.of(tenant).slots
	select {
	case slot <- struct{}{}:
		defer func() { <-slot }()
	case <-ctx.Done():
		return comfy.Input{}, failf(CodeUnavailable, "The server is busy with other files that you have named by URL. Nothing was accepted; try again.")
	}
	if link, ours, err := s.ownLink(img.url()); ours {
		if err != nil {
			return comfy.Input{}, err
		}
		return s.copyOutput(ctx, tenant, img, link, room)
	}
	got := &fetched{fetcher: f, room: room, from: withoutQuery(img.url())}
	reading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	got.ctx, got.timer = reading, time.AfterFunc(f.silence, func() { cancel(errSilent) })
	defer got.timer.Stop()
	if err := got.open(img.url()); err != nil {
		return comfy.Input{}, err
	}
	defer func() { _ = got.body.Close() }()
	return s.storeInput(ctx, tenant, img.Name, got, func(head []byte) error { return checkType(got.from, img.Name, head) })
}

// fetched is a file at a URL, bounded in size and in how long it may be silent.
type fetched struct {
	*fetcher
	room  *budget
	from  string // the address, for a person
	ctx   context.Context
	timer *time.Timer
	body  io.ReadCloser
}

func (g *fetched) open(raw string) error {
	req, err := http.NewRequestWithContext(g.ctx, http.MethodGet, raw, nil)
	if err != nil {
		return failf(CodeInvalidInput, "%s is no address that can be fetched.", g.from).because(err)
	}
	req.Header.Set(fiber.HeaderUserAgent, g.agent)
	req.Header.Set(fiber.HeaderAcceptEncoding, "identity")
	resp, err := g.client.Do(req)
	if err != nil {
		return g.failure(err)
	}
	g.body = resp.Body
	encoding := resp.Header.Get(fiber.HeaderContentEncoding)
	switch {
	case resp.StatusCode != http.StatusOK:
		err = failf(CodeInvalidInput, "%s answered %d %s.", g.from, resp.StatusCode, http.StatusText(resp.StatusCode))
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		err = failf(CodeInvalidInput, "%s sent the file compressed, although it was asked not to.", g.from)
	case resp.ContentLength > g.limit:
		err = g.fetcher.tooLarge(g.from)
	default:
		return nil
	}
	_ = resp.Body.Close()
	return err
}

func (g *fetched) Read(p []byte) (int, error) {
	g.timer.Reset(g.silence) // not before: the store may have taken its time
	n, err := g.body.Read(p)
	g.timer.Stop()
	if !g.room.take(int64(n)) {
		return 0, g.fetcher.tooLarge(g.from)
	}
	if err != nil && err != io.EOF {
		err = g.failure(err)
	}
	return n, err
}

func (f *fetcher) tooLarge(from string) error {
	return failf(CodeInvalidInput, "%s is too large: the files that one request names by URL may have %d bytes together (COMFYD_BODY_LIMIT).", from, f.limit)
}

// failure says why a file could not be fetched. The texts of the network's own errors stay out of it: they hold the whole
// address, or those of name servers.
func (g *fetched) failure(err error) error {
	var (
		whole *url.Error
		name  *net.DNSError
		cert  *tls.CertificateVerificationError
	)
	if errors.As(err, &whole) {
		err = whole.Err
	}
	why := "could not be fetched"
	switch {
	case errors.Is(err, outbound.ErrForbidden):
		why = "leads to an address that may not be called: " + outbound.ErrForbidden.Error()
	case errors.Is(err, outbound.ErrRedirects):
		why = "leads on and on: " + outbound.ErrRedirects.Error()
	case context.Cause(g.ctx) == errSilent:
		why = fmt.Sprintf("sent nothing for %s", g.silence)
	case errors.Is(g.ctx.Err(), context.Canceled):
		return failf(CodeUnavailable, "The server is stopping, or has given up the request. Nothing was accepted; try again.").because(err)
	case g.ctx.Err() != nil:
		why = fmt.Sprintf("did not come whole within the %s that a request's files may take", g.timeout)
	case errors.As(err, &name):
		why = "names a host that cannot be found"
	case errors.As(err, &cert):
		why = "has a certificate that is not valid"
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "cannot be reached: the connection was refused"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		why = "broke off before the file was whole"
	}
	return failf(CodeInvalidInput, "%s %s.", g.from, why).because(err)
}
