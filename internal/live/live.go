// Package live carries news of prompts from the worker that follows them to the API that streams them, as they happen:
// progress and preview pictures. Nothing of it is durable, and all of it may be lost: what counts stands in Temporal.
// Whoever publishes never waits for those who listen.
package live

import (
	"crypto/rand"
	"sync"
	"time"

	"github.com/comfyd/comfyd/backend"
)

// maxPreview is the largest picture that is passed on; ComfyUI's own have at most 512 pixels a side.
const maxPreview = 1 << 20

// News is what is new about a job's prompt.
type News struct {
	Update  *backend.Update  `json:"update,omitempty"`
	Preview *backend.Preview `json:"preview,omitempty"`
	// Over says that whoever followed the prompt does so no more, because it has ended or for another reason.
	Over bool `json:"over,omitempty"`
}

// Hub joins those who publish and those who listen in one process. The zero value is not for use; a nil one takes news
// and has no listeners.
type Hub struct {
	base        string // of the URLs under which others listen; empty where nobody can
	callTimeout time.Duration

	mu     sync.Mutex
	topics map[string]*topic  // by job
	tokens map[string]*Source // by the last part of their URLs
	turns  []func(job string)
}

// topic is a job that somebody publishes or listens to.
type topic struct {
	source    *Source         // the one that counts: the newest
	latest    *backend.Update // of it
	listeners map[*Subscription]struct{}
}

// NewHub makes a hub whose sources others can follow under base ("http://10.0.0.7:9465"); empty where [Hub.Handler] is not served.
func NewHub(base string) *Hub {
	return &Hub{base: base, callTimeout: callTimeout, topics: map[string]*topic{}, tokens: map[string]*Source{}}
}

// Turns has f called when somebody begins to publish about a job, and when it ends. f must be quick and not use the hub.
func (h *Hub) Turns(f func(job string)) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turns = append(h.turns, f)
}

// turn calls them. The lock is held.
func (h *Hub) turn(job string) {
	for _, f := range h.turns {
		f(job)
	}
}

// Source is who publishes about one prompt of a job. A nil one does nothing.
type Source struct {
	hub   *Hub
	job   string
	token string
}

// Begin returns the source of a job's prompt, in place of one that was there before. It must be ended.
func (h *Hub) Begin(job string) *Source {
	if h == nil {
		return nil
	}
	s := &Source{hub: h, job: job, token: rand.Text()}
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topic(job)
	t.source, t.latest = s, nil
	h.tokens[s.token] = s
	h.turn(job)
	return s
}

// URL is where others may follow the source while it is there: whoever knows it needs nothing else. Empty where nobody
// can.
func (s *Source) URL() string {
	if s == nil || s.hub.base == "" {
		return ""
	}
	return s.hub.base + path + s.token
}

// Publish tells all who listen, and returns at once.
func (s *Source) Publish(n News) {
	if n.Preview != nil && len(n.Preview.Data) > maxPreview {
		n.Preview = nil
	}
	if s == nil || n == (News{}) {
		return
	}
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	t := s.hub.topics[s.job]
	if t == nil || t.source != s {
		return
	}
	if n.Update != nil {
		t.latest = n.Update
	}
	for l := range t.listeners {
		l.take(n)
	}
}

// End says that no more comes from the source.
func (s *Source) End() {
	if s == nil {
		return
	}
	s.Publish(News{Over: true})
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.tokens, s.token)
	h.turn(s.job)
	if t := h.topics[s.job]; t != nil && t.source == s {
		t.source, t.latest = nil, nil
		h.drop(s.job, t)
	}
}

// Subscription is one who listens to a job. It keeps the newest of each kind of news, however long nobody takes them.
type Subscription struct {
	hub *Hub
	job string
	// C has a value when there are news.
	C <-chan struct{}

	c    chan struct{}
	mu   sync.Mutex
	news News
}

// Subscribe listens to a job, whether or not somebody publishes about it yet. It must be closed.
func (h *Hub) Subscribe(job string) *Subscription {
	c := make(chan struct{}, 1)
	l := &Subscription{hub: h, job: job, c: c, C: c}
	if h == nil {
		return l
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topic(job)
	t.listeners[l] = struct{}{}
	if t.latest != nil {
		l.take(News{Update: t.latest})
	}
	return l
}

// Publishes tells whether somebody publishes about a job in this process.
func (h *Hub) Publishes(job string) bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[job]
	return t != nil && t.source != nil
}

// take keeps the newest.
func (l *Subscription) take(n News) {
	l.mu.Lock()
	if n.Update != nil {
		l.news.Update, l.news.Over = n.Update, false
	}
	if n.Preview != nil {
		l.news.Preview = n.Preview
	}
	l.news.Over = l.news.Over || n.Over
	l.mu.Unlock()
	select {
	case l.c <- struct{}{}:
	default: // it knows already
	}
}

// Take returns what is new since the last Take.
func (l *Subscription) Take() News {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.news
	l.news = News{}
	return n
}

// Close ends the subscription.
func (l *Subscription) Close() {
	if l.hub == nil {
		return
	}
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if t := l.hub.topics[l.job]; t != nil {
		delete(t.listeners, l)
		l.hub.drop(l.job, t)
	}
}

// topic makes a job's where there is none. The lock is held.
func (h *Hub) topic(job string) *topic {
	t := h.topics[job]
	if t == nil {
		t = &topic{listeners: map[*Subscription]struct{}{}}
		h.topics[job] = t
	}
	return t
}

// drop forgets a topic that nobody has any more. The lock is held.
func (h *Hub) drop(job string, t *topic) {
	if t.source == nil && len(t.listeners) == 0 {
		delete(h.topics, job)
	}
}
