package activities

import (
	"maps"
	"sync"
	"time"

	"github.com/comfyd/comfyd/backend"
)

// placedFor is how long a placement counts before its prompt has started: the job is on its way through Temporal, or
// another worker has taken it.
const placedFor = 5 * time.Second

// load counts the prompts of each pool that this worker knows of, so that a full pool overflows into the next one. It
// is a guess where several workers serve a pool, and nothing's correctness rests on it.
type load struct {
	placedFor time.Duration

	mu      sync.Mutex
	running map[string]int
	placed  map[string]map[string]time.Time // by pool and job
}

func newLoad(placedFor time.Duration) *load {
	return &load{placedFor: placedFor, running: map[string]int{}, placed: map[string]map[string]time.Time{}}
}

// full tells whether a pool's slots are all taken, or about to be.
func (l *load) full(p backend.Pool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.placed[p.Name], func(_ string, at time.Time) bool { return time.Since(at) > l.placedFor })
	return l.running[p.Name]+len(l.placed[p.Name]) >= p.Slots
}

func (l *load) place(pool, job string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.placed[pool] == nil {
		l.placed[pool] = map[string]time.Time{}
	}
	l.placed[pool][job] = time.Now()
}

// enter counts a prompt that runs, until leave is called.
func (l *load) enter(pool, job string) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.placed[pool], job)
	l.running[pool]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.running[pool]--
	}
}
