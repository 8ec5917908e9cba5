package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

const (
	recordPrefix  = "workers/"
	catalogPrefix = "catalogs/"
	// publishEvery is how often a worker says what its backends are; a change of health is said within lookEvery.
	publishEvery = 10 * time.Second
	lookEvery    = time.Second
	// renewEvery is how often a catalogue that is in use is put again, so that no sweep takes it for forgotten; a worker
	// that was paused for days puts it again before it names it.
	renewEvery = time.Hour
	// staleAfter is when a record that has not been renewed counts for nothing.
	staleAfter = 45 * time.Second
)

// Blobs is what the catalogue needs of the blob store.
type Blobs interface {
	Put(ctx context.Context, key string, r io.Reader) (comfy.Blob, error)
	PutHashed(ctx context.Context, prefix string, r io.Reader) (comfy.Blob, error)
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	List(ctx context.Context, prefix string) iter.Seq2[comfy.Blob, error]
	Delete(ctx context.Context, key string) error
}

// Record is what a worker publishes about one of its pools.
type Record struct {
	Worker  string         `json:"worker"`
	Pool    backend.Pool   `json:"pool"`
	Order   int            `json:"order"` // the pool's place in the worker's preference
	Servers []ServerRecord `json:"servers"`
	At      time.Time      `json:"at"`
	// Leaving says that the worker takes no more jobs, and stops when those that run there have ended.
	Leaving bool `json:"leaving,omitempty"`
	// Stopped is the last word of a worker that has stopped, so that its pool is known to have been there.
	Stopped bool `json:"stopped,omitempty"`
}

// ServerRecord is one server of a pool, with its catalogue by reference.
type ServerRecord struct {
	backend.Server
	CatalogRef string `json:"catalog_ref,omitempty"`
}

// Publisher writes the records of one worker.
type Publisher struct {
	blobs    Blobs
	worker   string
	backends []backend.Backend
	log      logrus.FieldLogger

	stop context.CancelFunc
	gone chan struct{}

	mu      sync.Mutex
	refs    map[string]kept // what is in the store of each server's catalogue
	last    map[string]published
	leaving bool
	halted  string // why nothing runs on these backends, "" when something does
}

type kept struct {
	at   time.Time // of the catalogue
	ref  string
	when time.Time // when it was last put
}

type published struct {
	state string
	at    time.Time
}

// NewPublisher makes the publisher of the named worker.
func NewPublisher(b Blobs, worker string, backends []backend.Backend, log logrus.FieldLogger) *Publisher {
	return &Publisher{
		blobs: b, worker: worker, backends: backends, log: log,
		refs: map[string]kept{}, last: map[string]published{},
	}
}

// Start publishes until Stop.
func (p *Publisher) Start() {
	ctx, stop := context.WithCancel(context.Background())
	p.stop, p.gone = stop, make(chan struct{})
	go func() {
		defer close(p.gone)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			if err := p.Publish(ctx, false); err != nil && ctx.Err() == nil {
				p.log.WithError(err).Warn("cannot publish what the backends have; the API checks workflows against older knowledge")
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
}

// Leave says in the records that the worker takes no more jobs. It waits for the store no longer than ctx.
func (p *Publisher) Leave(ctx context.Context) {
	p.mu.Lock()
	p.leaving = true
	p.mu.Unlock()
	if err := p.Publish(ctx, true); err != nil {
		p.log.WithError(err).Debug("others place jobs here until the worker has stopped")
	}
}

// Halt publishes every server as not well, for a reason that no backend knows of; "" ends that.
func (p *Publisher) Halt(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halted = reason
}

// Stop ends the publishing and says so in the records.
func (p *Publisher) Stop() {
	p.stop()
	<-p.gone
	ctx, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	for _, b := range p.backends {
		if err := p.write(ctx, Record{Worker: p.worker, Pool: b.Pool(), At: time.Now().UTC(), Stopped: true}); err != nil {
			p.log.WithError(err).Debug("the worker's record stays until it is stale")
		}
	}
}

func (p *Publisher) write(ctx context.Context, r Record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing the record of pool %s: %w", r.Pool.Name, err)
	}
	if _, err := p.blobs.Put(ctx, p.key(r.Pool), bytes.NewReader(raw)); err != nil {
		return fmt.Errorf("publishing pool %s: %w", r.Pool.Name, err)
	}
	return nil
}

// Publish writes the records that have changed or are due; with now, all of them. One that cannot be written keeps no
// other back.
func (p *Publisher) Publish(ctx context.Context, now bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for i, b := range p.backends {
		errs = append(errs, p.publish(ctx, i, b, now))
	}
	return errors.Join(errs...)
}

// publish writes the record of one pool. The lock is held.
func (p *Publisher) publish(ctx context.Context, order int, b backend.Backend, now bool) error {
	r := Record{Worker: p.worker, Pool: b.Pool(), Order: order, At: time.Now().UTC(), Leaving: p.leaving}
	state := ""
	for _, s := range b.Servers() {
		if p.halted != "" {
			s.Healthy, s.Problem = false, p.halted
		}
		ref, err := p.keep(ctx, s)
		if err != nil {
			return err
		}
		r.Servers = append(r.Servers, ServerRecord{Server: s, CatalogRef: ref})
		state += fmt.Sprintf("%s %v %s %s\n", s.Name, s.Healthy, s.Problem, ref)
	}
	key := p.key(r.Pool)
	if l := p.last[key]; !now && l.state == state && r.At.Sub(l.at) < publishEvery {
		return nil
	}
	if err := p.write(ctx, r); err != nil {
		return err
	}
	p.last[key] = published{state: state, at: r.At}
	return nil
}

// keep puts a server's catalogue into the store when it is a new one.
func (p *Publisher) keep(ctx context.Context, s backend.Server) (string, error) {
	if len(s.Catalog) == 0 {
		return "", nil
	}
	if k, ok := p.refs[s.Name]; ok && k.at.Equal(s.CatalogAt) && time.Since(k.when) < renewEvery {
		return k.ref, nil
	}
	blob, err := p.blobs.PutHashed(ctx, catalogPrefix, bytes.NewReader(s.Catalog))
	if err != nil {
		return "", fmt.Errorf("publishing the catalogue of %s: %w", s.Name, err)
	}
	p.refs[s.Name] = kept{at: s.CatalogAt, ref: blob.Key, when: time.Now()}
	return blob.Key, nil
}

func (p *Publisher) key(pool backend.Pool) string {
	return recordPrefix + pool.Name + "/" + p.worker + ".json"
}
