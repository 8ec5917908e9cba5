package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// hereAllowed lets comfyd call receivers on this machine.
const hereAllowed = "COMFYD_PRIVATE_NETWORKS=127.0.0.1/32"

// mailbox keeps what receivers get, and verifies it.
type mailbox struct {
	verifier *standardwebhooks.Webhook

	mu       sync.Mutex
	messages []Message
	told     []string // jobs of which some receiver must have taken a message
}

func (w *world) mailbox() *mailbox {
	w.t.Helper()
	e := w.alice.Do(w.t.Context(), "GET", "/webhooks/secret", "", nil, nil)
	secret := e.Body["secrets"].([]any)[0].(string)
	verifier, err := standardwebhooks.NewWebhook(secret)
	require.NoError(w.t, err)
	w.secrets["the secret of alice's webhooks"] = []byte(secret)
	w.mail = &mailbox{verifier: verifier}
	return w.mail
}

// takes notes a message and answers it.
func (m *mailbox) takes(rw http.ResponseWriter, r *http.Request, status int) {
	raw, err := io.ReadAll(r.Body)
	got := Message{ID: r.Header.Get("webhook-id"), Taken: status < 300, Err: err}
	if err == nil {
		got.Err = m.verifier.Verify(raw, r.Header)
	}
	var body struct {
		Data map[string]any `json:"data"`
	}
	got.Err = errors.Join(got.Err, json.Unmarshal(raw, &body))
	got.Data = body.Data
	got.Job, _ = body.Data["id"].(string)
	m.mu.Lock()
	m.messages = append(m.messages, got)
	m.mu.Unlock()
	rw.WriteHeader(status)
}

func (m *mailbox) all() ([]Message, []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.messages), slices.Clone(m.told)
}

// of counts the messages about a job, and those that were taken.
func (m *mailbox) of(id string) (all, taken int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.messages {
		if one.Job == id {
			all++
			if one.Taken {
				taken++
			}
		}
	}
	return all, taken
}

// mustHear says that some receiver is to take a message about a job.
func (m *mailbox) mustHear(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = append(m.told, id)
	return id
}

func (w *world) heard(id string, all, taken int) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		a, t := w.mail.of(id)
		return a >= all && t >= taken
	}, 5*time.Minute, 20*time.Millisecond, "%d messages about %s, %d of them taken", all, id, taken)
}

// withHook submits a job that names a receiver.
func (w *world) withHook(n int, url string) string {
	w.t.Helper()
	e := w.send(job{graph: noise(n), more: map[string]any{"webhook_url": url}})
	require.Equal(w.t, http.StatusAccepted, e.Code, "%v %s", e.Body, e.Err)
	return e.Job
}

// webhookIs waits for a state of a job's webhook.
func (w *world) webhookIs(id, state string) (log map[string]any) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		log = w.alice.Do(w.t.Context(), "GET", "/jobs/"+id+"/webhook", "", nil, nil).Body
		return log["state"] == state
	}, 5*time.Minute, 50*time.Millisecond, "%s: %v", state, log)
	return log
}

// TestF15Receivers that are down, slow, gone, moved or broken: their jobs end as if they had none, attempts follow the
// schedule, a kill -9 of everything in between included, and what can be told is told.
func TestF15Receivers(t *testing.T) {
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL, hereAllowed)
	m := w.mailbox()
	var trapped, broken atomic.Int64
	hold := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			select {
			case <-hold:
				m.takes(rw, r, http.StatusOK)
			case <-r.Context().Done():
			}
		case "/gone":
			m.takes(rw, r, http.StatusGone)
		case "/moved":
			rw.Header().Set("Location", "/trap")
			m.takes(rw, r, http.StatusMovedPermanently)
		case "/trap":
			trapped.Add(1)
		case "/broken":
			status := http.StatusOK
			if broken.Add(1) == 1 {
				status = http.StatusInternalServerError
			}
			m.takes(rw, r, status)
		default:
			m.takes(rw, r, http.StatusOK)
		}
	}))
	defer receiver.Close()
	away := freePort(t)

	well := m.mustHear(w.withHook(301, receiver.URL+"/well"))
	slow := m.mustHear(w.withHook(302, receiver.URL+"/slow"))
	gone := w.withHook(303, receiver.URL+"/gone")
	moved := w.withHook(304, receiver.URL+"/moved")
	for _, id := range []string{well, slow, gone, moved} {
		w.completes(id, 1)
	}
	w.heard(well, 1, 1)
	w.webhookIs(gone, "gone")
	w.webhookIs(moved, "pending")
	w.heard(moved, 1, 0)
	var mended, down string
	for n := 305; ; n += 2 {
		broken.Store(0)
		mended, down = w.withHook(n, receiver.URL+"/broken"), w.withHook(n+1, "http://"+away+"/hook")
		ones := 0
		for _, id := range []string{mended, down} { // heard is not noted yet
			var attempts []any
			require.Eventually(t, func() bool {
				attempts, _ = w.alice.Do(t.Context(), "GET", "/jobs/"+id+"/webhook", "", nil, nil).Body["attempts"].([]any)
				return len(attempts) > 0
			}, 5*time.Minute, 20*time.Millisecond)
			if len(attempts) == 1 {
				ones++
			}
			if id == down {
				require.Equal(t, "nobody can be reached at its address", attempts[0].(map[string]any)["error"])
			}
		}
		if ones == 2 {
			break
		}
		t.Log("the second attempts came before the kill: once more") // five seconds are short on a busy machine
	}
	m.mustHear(mended)
	m.mustHear(down)
	w.fired(true, "receivers were down, slow, gone, moved and broken")

	p.kill() // while two of them wait for their second attempt, and one for an answer
	w.fired(true, "kill -9 of everything between two attempts")
	l, err := net.Listen("tcp", away)
	require.NoError(t, err)
	back := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { m.takes(rw, r, http.StatusNoContent) })}}
	back.Start()
	defer back.Close()
	p.start()
	w.heard(mended, 2, 1)
	w.heard(down, 1, 1)
	close(hold)
	w.heard(slow, 1, 1)
	for _, id := range []string{mended, down} {
		log := w.webhookIs(id, "delivered")
		attempts := log["attempts"].([]any)
		at := func(i int) time.Time {
			when, err := time.Parse(time.RFC3339Nano, attempts[i].(map[string]any)["at"].(string))
			require.NoError(t, err)
			return when
		}
		require.Len(t, attempts, 2, "%v", log)
		require.GreaterOrEqual(t, at(1).Sub(at(0)), 5*time.Second)
		t.Logf("the second attempt came %.1f s after the first, with a kill -9 in between", at(1).Sub(at(0)).Seconds())
	}
	log := w.webhookIs(moved, "pending")
	require.Contains(t, fmt.Sprint(log["attempts"]), "redirects are not followed")
	require.Zero(t, trapped.Load(), "the redirect was followed")
	all, _ := m.of(gone)
	require.Equal(t, 1, all, "410: once and never again")

	// By hand it goes at once, under the same id, which the check holds against the first.
	require.Equal(t, http.StatusAccepted, w.alice.Do(t.Context(), "POST", "/jobs/"+well+"/webhook/replay", well, nil, nil).Code)
	w.heard(well, 2, 2)
	require.Len(t, w.webhookIs(well, "delivered")["attempts"], 2)
	w.check()
}

// TestF15KilledAtTheEnd kills everything while jobs with receivers end, again and again: each is told, and none waits.
func TestF15KilledAtTheEnd(t *testing.T) {
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL, hereAllowed)
	m := w.mailbox()
	const room = 6 // messages are taken before the kill; the others wait for an answer
	var taken atomic.Int64
	var killed atomic.Pointer[chan struct{}]
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if taken.Add(1) > room {
			select {
			case <-*killed.Load():
			case <-r.Context().Done():
				return
			}
		}
		m.takes(rw, r, http.StatusOK)
	}))
	defer receiver.Close()
	n, number, rounds := 12, 400, 3
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		hold := make(chan struct{})
		release := sync.OnceFunc(func() { close(hold) })
		defer release()
		killed.Store(&hold)
		taken.Store(0)
		var ids []string
		for range n {
			number++
			ids = append(ids, m.mustHear(w.withHook(number, receiver.URL)))
		}
		require.Eventually(t, func() bool {
			ended := 0
			for _, id := range ids {
				if w.status(id).Code == http.StatusOK {
					ended++
				}
			}
			return ended > 0
		}, 5*time.Minute, time.Millisecond)
		told := 0
		for _, id := range ids {
			if all, _ := m.of(id); all > 0 {
				told++
			}
		}
		p.kill()
		w.fired(told < n, fmt.Sprintf("kill -9 of everything after %d of %d were told", told, n))
		release()
		p.start()
		for _, id := range ids {
			w.finish(id)
			w.heard(id, 1, 1)
		}
	}
	w.check()
}

// TestF15Terminated: the workflow of a job that an operator terminates can tell nobody; a sweep does.
func TestF15Terminated(t *testing.T) {
	w, s := newWorld(t), fakecomfy.New(t)
	w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL, hereAllowed)
	m := w.mailbox()
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { m.takes(rw, r, http.StatusOK) }))
	defer receiver.Close()
	gate := s.Hold("EmptyImage")
	id := m.mustHear(w.withHook(350, receiver.URL))
	gate.Reached()
	c, err := w.dial(time.Minute)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.TerminateWorkflow(t.Context(), id, "", "the test"))
	gate.Open()
	w.fails(id, "internal")
	w.fired(true, "a job was terminated in Temporal")
	w.webhookIs(id, "unsent")
	require.Eventually(t, func() bool { // the list of jobs comes a little later than their ends
		require.NoError(t, c.ScheduleClient().GetHandle(t.Context(), "comfyd-sweep").Trigger(t.Context(), client.ScheduleTriggerOptions{}))
		all, _ := m.of(id)
		return all > 0
	}, 5*time.Minute, time.Second)
	w.webhookIs(id, "delivered")
	w.check()
}
