package comfyhttp

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sony/gobreaker/v2"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/internal/catalog"
)

// server is one ComfyUI and what is known about it.
type server struct {
	name string
	base *url.URL
	auth string
	http *http.Client
	log  logrus.FieldLogger
	t    timing

	inFlight int // our own prompts; guarded by Backend.mu
	breaker  *gobreaker.TwoStepCircuitBreaker[any]

	asking sync.Mutex      // one probe or catalogue read at a time
	asked  context.Context // ends with the first probe
	answer context.CancelFunc

	mu        sync.Mutex
	up        bool
	problem   string
	version   string
	device    string
	lastSeen  time.Time
	life      time.Time // the last sign of any of our prompts
	raw       []byte
	cat       *catalog.Catalog
	catalogAt time.Time
	stuck     *stuck
}

// stuck is why a server has been put aside.
type stuck struct {
	why     string
	prompts []string // those in its queue that do not move
	since   time.Time
	dead    bool // its execution thread has ended
}

func newServer(address string, transport http.RoundTripper, log logrus.FieldLogger, t timing) (*server, error) {
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil {
		// The parser's own error repeats the address, which may hold a password.
		return nil, fmt.Errorf("comfyhttp: the address of a ComfyUI server cannot be read; it should look like http://127.0.0.1:8188")
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("comfyhttp: %q is no address of a ComfyUI server; it should look like http://127.0.0.1:8188", u.Redacted())
	}
	s := &server{t: t, problem: "not asked yet", breaker: newBreaker(t)}
	s.asked, s.answer = context.WithCancel(context.Background())
	if u.User != nil {
		password, _ := u.User.Password()
		s.auth = "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))
		u.User = nil
	}
	u.Path = strings.TrimRight(u.Path, "/")
	s.base, s.name = u, u.String()
	s.log = log.WithField("server", s.name)
	s.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // a redirected POST would lose its body, and the credentials are for this host
	}}
	return s, nil
}

func (s *server) report() backend.Server {
	resting := s.resting()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := backend.Server{Name: s.name, Healthy: s.up && s.stuck == nil && resting == "", Problem: s.problem, Version: s.version,
		Device: s.device, LastSeen: s.lastSeen, Catalog: s.raw, CatalogAt: s.catalogAt}
	switch {
	case s.up && s.stuck != nil:
		r.Problem = s.stuck.why
	case s.up:
		r.Problem = resting
	}
	return r
}

// ready returns the catalogue of a server that is well, else nil.
func (s *server) ready() *catalog.Catalog {
	resting := s.resting()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up || s.stuck != nil || resting != "" {
		return nil
	}
	return s.cat
}

// known returns the last catalogue seen, whether the server is well or not.
func (s *server) known() (*catalog.Catalog, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cat, s.device
}

// alive notes a sign of one of our prompts.
func (s *server) alive() {
	s.mu.Lock()
	s.life = time.Now()
	s.mu.Unlock()
}

func (s *server) lastLife() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life
}

// watch probes the server until ctx ends.
func (s *server) watch(ctx context.Context) {
	tick := time.NewTicker(s.t.probe)
	defer tick.Stop()
	for {
		s.probe(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// probe asks the server whether it lives, by the cheapest call there is, and for everything else when it has come back
// or the last answer is old.
func (s *server) probe(ctx context.Context) {
	defer s.answer()
	s.asking.Lock()
	defer s.asking.Unlock()
	var info comfyui.QueueInfo
	if err := s.get(ctx, s.t.call, "/prompt", &info); err != nil {
		s.down(ctx, err)
		return
	}
	s.mu.Lock()
	s.lastSeen = time.Now()
	old := !s.up || time.Since(s.catalogAt) > s.t.catalogEvery
	stuck := s.stuck
	s.mu.Unlock()
	if old {
		if err := s.learn(ctx); err != nil {
			s.down(ctx, err)
			return
		}
	}
	if stuck != nil {
		s.tryAgain(ctx, stuck)
	}
}

// refresh reads the catalogue unless it is younger than since.
func (s *server) refresh(ctx context.Context, since time.Time) error {
	s.asking.Lock()
	defer s.asking.Unlock()
	s.mu.Lock()
	young := s.up && s.catalogAt.After(since)
	s.mu.Unlock()
	if young {
		return nil
	}
	if err := s.learn(ctx); err != nil {
		s.down(ctx, err)
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// learn reads what the server is and which nodes it has, and counts it as up.
func (s *server) learn(ctx context.Context) error {
	var stats systemStats
	if err := s.get(ctx, s.t.call, "/system_stats", &stats); err != nil {
		return err
	}
	raw, err := s.call(ctx, s.t.slow, http.MethodGet, "/object_info", nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	cat, same := s.cat, s.cat != nil && bytes.Equal(raw, s.raw)
	s.mu.Unlock()
	if !same {
		if cat, err = catalog.Parse(raw); err != nil {
			return &callError{status: http.StatusOK, why: "its list of nodes cannot be read", err: err}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up {
		s.log.WithField("version", stats.System.Version).Info("ComfyUI is up")
	}
	s.up, s.problem = true, ""
	s.version, s.device = stats.System.Version, stats.device()
	s.raw, s.cat, s.catalogAt, s.lastSeen = raw, cat, time.Now(), time.Now()
	return nil
}

// down notes that the server gave no answer. A probe that was given up says nothing about the server.
func (s *server) down(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		s.log.WithError(err).Warn("ComfyUI is down")
	}
	s.up, s.problem = false, err.Error()
	if s.stuck != nil && len(s.stuck.prompts) == 0 {
		s.stuck = nil // whatever was wrong with it, this is another process now, or will be
	}
}

// putAside keeps new prompts away until the ones named are out of the server's queue: a ComfyUI whose execution
// thread has died answers everything and runs nothing.
//
// dead says that it is known to be that, which all that wait there go by.
func (s *server) putAside(why string, prompts []string, dead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = &stuck{why: why, prompts: prompts, since: time.Now(), dead: dead}
	s.log.WithField("prompts", prompts).Warn("ComfyUI put aside: " + why)
}

// dead tells whether the server runs nothing any more, by what one of our prompts has seen.
func (s *server) dead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stuck != nil && s.stuck.dead
}

// tryAgain takes a server back when what was stuck has left its queue, which a restart brings about as well. Where the
// queue did not move although nothing ran in it, only a restart or the passing of time can tell.
func (s *server) tryAgain(ctx context.Context, was *stuck) {
	q, err := s.queue(ctx)
	if err != nil {
		return
	}
	for _, id := range was.prompts {
		if running, position := q.find(id); running || position >= 0 {
			return
		}
	}
	if len(was.prompts) == 0 && time.Since(was.since) < s.t.stall {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck == was {
		s.stuck = nil
		s.log.Info("ComfyUI taken back")
	}
}
