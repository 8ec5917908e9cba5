package live

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// path is where a hub's sources are, each under its token.
	path = "/live/"
	// pingEvery keeps a connection that has nothing to say from looking broken; silence is when it counts as that.
	pingEvery = 5 * time.Second
	silence   = 15 * time.Second
	// callTimeout bounds how long the other side may take to answer at all, and to take what is written.
	callTimeout = 3 * time.Second
	// maxLine holds a preview in base64, and what stands around it.
	maxLine = 2 * maxPreview
)

// Server answers those who follow the hub's sources from elsewhere: GET /live/{token}, one line of JSON for each [News].
// There is no other login than the token, which a source has for as long as it is there.
func (h *Hub) Server() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path+"{token}", h.serve)
	return &http.Server{Handler: mux, ReadHeaderTimeout: h.callTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
}

// serve streams one source's news to one who follows it.
func (h *Hub) serve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	s := h.tokens[r.PathValue("token")]
	h.mu.Unlock()
	if s == nil {
		http.NotFound(w, r)
		return
	}
	l := h.Subscribe(s.job)
	defer l.Close()
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/jsonl")
	say := func(n News) bool {
		raw, err := json.Marshal(n)
		if err != nil || out.SetWriteDeadline(time.Now().Add(h.callTimeout)) != nil {
			return false
		}
		_, err = w.Write(append(raw, '\n'))
		return err == nil && out.Flush() == nil
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	// The first line comes at once: it says that somebody is there.
	for n := l.Take(); say(n) && !n.Over; {
		if !h.has(s) { // its last word may have come before we listened
			say(News{Over: true})
			return
		}
		select {
		case <-l.C:
			n = l.Take()
		case <-ping.C:
			n = News{}
		case <-r.Context().Done():
			return
		}
	}
}

func (h *Hub) has(s *Source) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tokens[s.token] == s
}

// follower makes the one connection of a prompt that is followed. Names and redirects of others' choice lead nowhere.
func (h *Hub) follower() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: h.callTimeout}).DialContext,
			ResponseHeaderTimeout: h.callTimeout,
			DisableKeepAlives:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

var errSilent = errors.New("it has fallen silent")

// Follow publishes in this hub what the source at an address of another one says about a job, until that is over, the
// connection breaks or ctx ends.
func (h *Hub) Follow(ctx context.Context, job, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || !strings.HasPrefix(u.Path, path) {
		return fmt.Errorf("a worker says that news of the job %s are at %q, which is no such address", job, address)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watch.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("following the job %s: %w", job, err)
	}
	res, err := h.follower().Do(req)
	if err != nil {
		return fmt.Errorf("the worker of the job %s, at %s, cannot be followed: %w", job, u.Host, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the worker of the job %s, at %s, answers %s", job, u.Host, res.Status)
	}
	source := h.Begin(job)
	defer source.End()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		watch.Reset(silence)
		var n News
		if err := json.Unmarshal(lines.Bytes(), &n); err != nil {
			return fmt.Errorf("the worker of the job %s, at %s, says what cannot be read: %w", job, u.Host, err)
		}
		if n.Over {
			return nil
		}
		source.Publish(n)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the connection to the worker of the job %s, at %s, has ended: %w", job, u.Host, err)
	}
	return fmt.Errorf("the connection to the worker of the job %s, at %s, has ended", job, u.Host)
}
