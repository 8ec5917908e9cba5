package modal

import (
	"context"
	"sync"

	sdk "github.com/modal-labs/modal-client/go"
)

// lines are connections for the questions that Modal holds until there is an answer. A server bounds the requests of one
// connection, often at 100 (RFC 9113, 6.5.2: SETTINGS_MAX_CONCURRENT_STREAMS), and grpc-go lets those beyond it wait: on
// the connection of the short calls a few dozen jobs would keep everything else from being asked.
type lines struct {
	open func() (*client, error)
	most int // questions on one connection

	mu     sync.Mutex
	all    []*line
	closed bool
}

// line is one connection.
type line struct {
	*client
	used int // guarded by lines.mu

	mu    sync.Mutex
	queue *sdk.Queue // of the progress, as this connection knows it
}

// take returns a connection with room for one more question, which put gives back.
func (l *lines) take() (*line, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, context.Canceled
	}
	for _, x := range l.all {
		if x.used < l.most {
			x.used++
			return x, nil
		}
	}
	c, err := l.open() // which sends nothing
	if err != nil {
		return nil, err
	}
	x := &line{client: c, used: 1}
	l.all = append(l.all, x)
	return x, nil
}

func (l *lines) put(x *line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x.used--
}

func (l *lines) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, x := range l.all {
		x.sdk.Close()
	}
}

// progress finds the queue, once. Either side may be the first to want it.
func (x *line) progress(ctx context.Context, app string) (*sdk.Queue, error) {
	x.mu.Lock()
	q := x.queue
	x.mu.Unlock()
	if q != nil {
		return q, nil
	}
	q, err := x.sdk.Queues.FromName(ctx, app+"-progress", &sdk.QueueFromNameParams{CreateIfMissing: true})
	if err == nil {
		x.mu.Lock()
		x.queue = q
		x.mu.Unlock()
	}
	return q, err
}

// forget makes the queue be found anew.
func (x *line) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.queue = nil
}
