// Package webhook tells receivers what has happened: it signs messages as Standard Webhooks 1.0 asks for, and posts them to
// addresses that clients have named.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/outbound"
)

const (
	answerTimeout = 15 * time.Second
	// maxAnswer is how much of an answer is read, and kept.
	maxAnswer = 1 << 10
)

// Options of a [Sender].
type Options struct {
	Caller *outbound.Caller
	// Secrets sign for the tenants that they name; those without a tenant for all others, each with one of its own.
	Secrets []Secret
	// Fallback is what a tenant's secret is made of where Secrets has none for it.
	Fallback []byte
	Version  string
	// Timeout is what a receiver has for its answer, from the first look for its address on; 0 means 15 s.
	Timeout time.Duration
	// Observe is told of each attempt; nil: nobody is.
	Observe func(outcome comfy.DeliveryOutcome, took time.Duration)
	Log     logrus.FieldLogger
}

// Sender posts messages. It is safe for concurrent use.
type Sender struct {
	o      Options
	client *http.Client
}

// New makes a sender.
func New(o Options) *Sender {
	if o.Timeout == 0 {
		o.Timeout = answerTimeout
	}
	return &Sender{o: o, client: o.Caller.Client(false)}
}

// Close ends the connections that wait for another message.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// Check refuses the address of a receiver that could never be called; the error says why.
func (s *Sender) Check(address string) error {
	if len(address) > comfy.MaxWebhookURL {
		return fmt.Errorf("it has %d bytes; at most %d are allowed", len(address), comfy.MaxWebhookURL)
	}
	return s.o.Caller.Check(address)
}

// Message is one to be posted.
type Message struct {
	Tenant, URL, ID string
	Body            []byte
}

// Send makes one attempt. An error means that ctx has ended and nobody knows what became of it; all else stands in the
// delivery.
func (s *Sender) Send(ctx context.Context, m Message) (*comfy.Delivery, error) {
	began := time.Now()
	d := &comfy.Delivery{At: began.UTC()}
	err := s.Check(m.URL)
	if err == nil {
		err = s.post(ctx, m, began, d)
	} else {
		err = fmt.Errorf("%w: %w", outbound.ErrForbidden, err)
	}
	if ctx.Err() != nil && d.HTTPStatus == 0 {
		return nil, fmt.Errorf("the attempt was broken off: %w", context.Cause(ctx))
	}
	took := time.Since(began)
	d.DurationMS = took.Milliseconds()
	d.Outcome = outcome(d.HTTPStatus, err)
	if d.Outcome != comfy.Delivered {
		d.Error = s.reason(d.HTTPStatus, err)
	}
	if s.o.Observe != nil {
		s.o.Observe(d.Outcome, took)
	}
	return d, nil
}

// post fills d with what the receiver says.
func (s *Sender) post(ctx context.Context, m Message, at time.Time, d *comfy.Delivery) error {
	ctx, done := context.WithTimeout(ctx, s.o.Timeout)
	defer done()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.URL, bytes.NewReader(m.Body))
	if err != nil {
		return err
	}
	signature, err := s.sign(m, at)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "comfyd/"+s.o.Version)
	r.Header.Set(standardwebhooks.HeaderWebhookID, m.ID)
	r.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(at.Unix(), 10))
	r.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	resp, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	d.HTTPStatus = resp.StatusCode
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		d.RetryAfterSeconds = retryAfter(resp.Header.Get("Retry-After"), at)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil { // its status counts all the same
		s.o.Log.WithError(err).Debug("the answer of a webhook's receiver broke off")
	}
	d.Answer = strings.ToValidUTF8(string(answer), "\uFFFD")
	return nil
}

// sign makes one signature with each of the tenant's secrets, so that a receiver may know either while they are changed.
func (s *Sender) sign(m Message, at time.Time) (string, error) {
	var all []string
	for _, secret := range s.SecretsOf(m.Tenant) {
		w, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return "", errors.New("a secret for webhooks cannot be read") // not err: it may hold it
		}
		one, err := w.Sign(m.ID, at, m.Body)
		if err != nil {
			return "", fmt.Errorf("signing: %w", err)
		}
		all = append(all, one)
	}
	return strings.Join(all, " "), nil
}

func outcome(status int, err error) comfy.DeliveryOutcome {
	switch {
	case errors.Is(err, outbound.ErrForbidden):
		return comfy.DeliveryRefused
	case err == nil && status >= 200 && status < 300:
		return comfy.Delivered
	case status == http.StatusGone:
		return comfy.DeliveryGone
	}
	return comfy.DeliveryFailed
}

// reason words a failure for the tenant. It tells nothing of the network that comfyd is in: no address that a name has there,
// and no resolver's.
func (s *Sender) reason(status int, err error) string {
	var (
		name        *net.DNSError
		certificate *tls.CertificateVerificationError
		op          *net.OpError
		wrapped     *url.Error
	)
	switch {
	case status == http.StatusGone:
		return "HTTP 410: the receiver wants no more messages"
	case status >= 300 && status < 400:
		return fmt.Sprintf("HTTP %d: redirects are not followed; name the address that it leads to", status)
	case status != 0:
		return fmt.Sprintf("HTTP %d", status)
	case errors.Is(err, outbound.ErrForbidden):
		return "the address may not be called: " + outbound.ErrForbidden.Error()
	case errors.As(err, &name):
		return "the name of the receiver cannot be resolved"
	case errors.As(err, &certificate):
		return "its certificate: " + certificate.Err.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &wrapped) && wrapped.Timeout():
		return fmt.Sprintf("no answer within %s", s.o.Timeout)
	case errors.As(err, &op) && op.Op == "dial":
		return "nobody can be reached at its address"
	}
	return "the connection broke off"
}

// retryAfter reads the header's two forms, seconds and a date; 0 where there is none.
func retryAfter(header string, now time.Time) int {
	if s, err := strconv.Atoi(header); err == nil {
		return max(s, 0)
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(int(at.Sub(now)/time.Second)+1, 0)
	}
	return 0
}
