package webhook_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/outbound"
	"github.com/comfyd/comfyd/internal/webhook"
)

var (
	here = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	body = []byte(`{"type":"job.completed","data":{"prompt":"ein Käse"}}`)
)

func sender(t *testing.T, allowed []netip.Prefix, secrets ...webhook.Secret) (*webhook.Sender, *logtest.Hook) {
	return senderWithin(t, 30*time.Second, allowed, secrets...)
}

// senderWithin is one whose receivers have that long to answer.
func senderWithin(t *testing.T, timeout time.Duration, allowed []netip.Prefix, secrets ...webhook.Secret) (*webhook.Sender, *logtest.Hook) {
	log, hook := logtest.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	s := webhook.New(webhook.Options{
		Caller: outbound.New(allowed), Secrets: secrets, Fallback: []byte("the-signing-key-of-this-comfyd-0123"), Version: "test",
		Timeout: timeout, Log: log,
	})
	t.Cleanup(s.Close)
	return s, hook
}

func send(t *testing.T, s *webhook.Sender, url string) *comfy.Delivery {
	t.Helper()
	d, err := s.Send(t.Context(), webhook.Message{Tenant: "alice", URL: url, ID: "msg_1", Body: body})
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), d.At, time.Minute)
	return d
}

// TestSignature is verified by the official library, also while secrets are changed.
func TestSignature(t *testing.T) {
	var got *http.Request
	var payload []byte
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		payload, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, "thanks")
	}))
	defer receiver.Close()
	verify := func(secret string) error {
		w, err := standardwebhooks.NewWebhook(secret)
		require.NoError(t, err)
		return w.Verify(payload, got.Header)
	}
	const older, newer, shared = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5", "whsec_OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjE=", "whsec_c2hhcmVkLXNoYXJlZC1zaGFyZWQtc2hhcmVk"
	both, _ := sender(t, here, webhook.Secret{Tenant: "alice", Value: newer}, webhook.Secret{Value: shared}, webhook.Secret{Tenant: "alice", Value: older})
	d := send(t, both, receiver.URL)
	require.Equal(t, comfy.Delivered, d.Outcome)
	require.Equal(t, 200, d.HTTPStatus)
	require.Equal(t, "thanks", d.Answer)
	require.Empty(t, d.Error)
	require.Equal(t, body, payload)
	require.Equal(t, "msg_1", got.Header.Get("webhook-id"))
	require.Equal(t, "application/json", got.Header.Get("Content-Type"))
	at, err := strconv.ParseInt(got.Header.Get("webhook-timestamp"), 10, 64)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), time.Unix(at, 0), time.Minute)
	require.Len(t, strings.Fields(got.Header.Get("webhook-signature")), 2)
	require.NoError(t, verify(older))
	require.NoError(t, verify(newer))
	require.Error(t, verify(shared))
	require.Equal(t, []string{newer, older}, both.SecretsOf("alice"))

	// What all share signs for each tenant with a secret of its own, and so does the fallback.
	seen := map[string]bool{}
	fallback, _ := sender(t, here)
	for _, s := range []*webhook.Sender{both, fallback} {
		for _, tenant := range []string{"bob", "carol"} {
			secrets := s.SecretsOf(tenant)
			require.Len(t, secrets, 1)
			require.False(t, seen[secrets[0]], "two tenants have one secret")
			seen[secrets[0]] = true
			require.NotContains(t, secrets[0], shared)
			_, err := s.Send(t.Context(), webhook.Message{Tenant: tenant, URL: receiver.URL, ID: "msg_2", Body: body})
			require.NoError(t, err)
			require.NoError(t, verify(secrets[0]))
			require.Error(t, verify(both.SecretsOf("alice")[0]))
			payload = append(payload, ' ')
			require.Error(t, verify(secrets[0]), "another body")
		}
	}
}

// TestAnswers: what a receiver says, and what is made of it.
func TestAnswers(t *testing.T) {
	var reached atomic.Int64
	hold := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/200", http.StatusMovedPermanently)
		case "/silent":
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte("\xffand so on ")); err != nil {
					return
				}
			}
		case "/broken":
			panic(http.ErrAbortHandler)
		case "/later":
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusTooManyRequests)
		case "/at":
			w.Header().Set("Retry-After", time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			code, _ := strconv.Atoi(r.URL.Path[1:])
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(code)
		}
	}))
	defer receiver.Close()
	defer close(hold)
	receiver.Config.ErrorLog = nil
	s, hook := sender(t, here)
	// Long enough that the receiver is reached, if this process pauses.
	hasty, hastyHook := senderWithin(t, 5*time.Second, here)
	for path, want := range map[string]comfy.Delivery{
		"/200":      {Outcome: comfy.Delivered, HTTPStatus: 200},
		"/204":      {Outcome: comfy.Delivered, HTTPStatus: 204},
		"/400":      {Outcome: comfy.DeliveryFailed, HTTPStatus: 400, Error: "HTTP 400"},
		"/410":      {Outcome: comfy.DeliveryGone, HTTPStatus: 410, Error: "wants no more"},
		"/500":      {Outcome: comfy.DeliveryFailed, HTTPStatus: 500, Error: "HTTP 500"},
		"/redirect": {Outcome: comfy.DeliveryFailed, HTTPStatus: 301, Error: "redirects are not followed"},
		"/later":    {Outcome: comfy.DeliveryFailed, HTTPStatus: 429, Error: "HTTP 429", RetryAfterSeconds: 120},
		"/silent":   {Outcome: comfy.DeliveryFailed, Error: "no answer within 5s"},
		"/broken":   {Outcome: comfy.DeliveryFailed, Error: "the connection broke off"},
	} {
		before := reached.Load()
		by := s
		if path == "/silent" {
			by = hasty
		}
		got := send(t, by, receiver.URL+path+"?token=a-secret-of-the-receiver")
		require.Contains(t, got.Error, want.Error, path)
		require.Equal(t, want.Error == "", got.Error == "", path)
		require.Equal(t, []any{want.Outcome, want.HTTPStatus, want.RetryAfterSeconds}, []any{got.Outcome, got.HTTPStatus, got.RetryAfterSeconds}, path)
		require.EqualValues(t, before+1, reached.Load(), path)
		require.NotContains(t, got.Error, "token")
	}
	d := send(t, s, receiver.URL+"/at")
	require.InDelta(t, 600, d.RetryAfterSeconds, 60)
	d = send(t, s, receiver.URL+"/endless")
	require.Equal(t, comfy.Delivered, d.Outcome, "its status counts")
	require.NotEmpty(t, d.Answer)
	require.LessOrEqual(t, len(d.Answer), 3<<10)
	require.True(t, strings.HasPrefix(d.Answer, "\uFFFDand so on"), "%q", d.Answer)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.Contains(t, send(t, s, "http://"+l.Addr().String()).Error, "nobody can be reached")
	require.Contains(t, send(t, s, "https://no-such-name.invalid/").Error, "cannot be resolved")
	secure := httptest.NewTLSServer(receiver.Config.Handler)
	defer secure.Close()
	secure.Config.ErrorLog = nil
	require.Contains(t, send(t, s, secure.URL+"/200").Error, "its certificate")
	for _, line := range slices.Concat(hook.AllEntries(), hastyHook.AllEntries()) {
		text, err := line.String()
		require.NoError(t, err)
		require.NotContains(t, text, "a-secret-of-the-receiver")
	}
}

// TestAnAttemptThatIsBrokenOffIsNone: the process stops, and another makes it.
func TestAnAttemptThatIsBrokenOffIsNone(t *testing.T) {
	began := make(chan struct{})
	hold := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(began)
		<-hold
	}))
	defer receiver.Close()
	defer close(hold)
	s, _ := sender(t, here)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		<-began
		stop()
	}()
	d, err := s.Send(ctx, webhook.Message{Tenant: "alice", URL: receiver.URL, ID: "msg_1", Body: body})
	require.Nil(t, d)
	require.ErrorIs(t, err, context.Canceled)
}

// TestNoPrivateAddress is reached, however it is written and whatever a name means: row F26.
func TestNoPrivateAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var reached atomic.Int64
	trap := &httptest.Server{Listener: l, Config: &http.Server{
		Handler:   http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		ConnState: func(net.Conn, http.ConnState) { reached.Add(1) },
	}}
	trap.StartTLS()
	defer trap.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	s, _ := sender(t, nil)
	for _, host := range []string{
		"127.0.0.1", "127.1", "2130706433", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "0", "0.0.0.0", "localhost", "ip6-localhost",
		"[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1%25lo]",
		"10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "[fd00::1]", "100.64.0.1",
	} {
		d := send(t, s, fmt.Sprintf("https://%s:%s/hook", host, port))
		require.Contains(t, []comfy.DeliveryOutcome{comfy.DeliveryRefused, comfy.DeliveryFailed}, d.Outcome, host)
		require.Zero(t, d.HTTPStatus, host)
		require.NotContains(t, d.Error, "127.0.0.1", "it tells nothing of the network here: %s", host)
		require.Zero(t, reached.Load(), host)
	}
	for _, url := range []string{"http://localhost:" + port, "file:///etc/passwd", "https://me:secret@example.com/", "gopher://127.0.0.1:" + port} {
		require.Equal(t, comfy.DeliveryRefused, send(t, s, url).Outcome, url)
		require.Error(t, s.Check(url))
	}
	require.Zero(t, reached.Load())
	require.Equal(t, comfy.DeliveryRefused, send(t, s, "https://localhost:"+port).Outcome, "a name that means this machine is refused when it is dialled")
}
