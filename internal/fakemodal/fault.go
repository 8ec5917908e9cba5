package fakemodal

import (
	"context"
	"math"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Fault is a misbehaviour that has been armed. It lasts until it is cleared or used up.
type Fault struct {
	rule    Rule
	fired   atomic.Int64
	first   chan struct{} // closed when it fires
	cleared chan struct{}
	once    sync.Once
	clear   sync.Once
	undo    func()
}

// From says whose requests a rule is for.
type From int

const (
	Anyone     From = iota
	Clients         // Go and Python SDKs outside
	Containers      // the code that runs in a container
)

// Rule says which requests go wrong, and how. The zero Rule spoils nothing.
type Rule struct {
	Methods []string // "FunctionMap", ...; none for all of them. "GET" and "PUT" are those of blobs
	From    From
	Times   int           // how many requests; 0 until cleared
	Delay   time.Duration // the request waits so long
	Hang    bool          // the request waits until the fault is cleared or the caller gives up
	// Late applies all this after the request has taken effect and before its answer goes out.
	Late    bool
	Code    codes.Code // OK lets the request pass
	Message string
	// RetryAfter adds the detail by which Modal tells its SDKs to come again (CODE: client.go getServerRetryPolicy).
	RetryAfter time.Duration
}

func newFault(r Rule, undo func()) *Fault {
	return &Fault{rule: r, first: make(chan struct{}), cleared: make(chan struct{}), undo: undo}
}

// Fired returns how often it has happened.
func (f *Fault) Fired() int {
	return int(min(f.fired.Load(), math.MaxInt32))
}

// Wait returns when it has happened at least once, or ctx's error.
func (f *Fault) Wait(ctx context.Context) error {
	select {
	case <-f.first:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Clear ends it, also for requests that it holds up.
func (f *Fault) Clear() {
	f.clear.Do(func() {
		close(f.cleared)
		if f.undo != nil {
			f.undo()
		}
	})
}

func (f *Fault) fire() {
	f.fired.Add(1)
	f.once.Do(func() { close(f.first) })
}

// take uses it once, if there is something left of it.
func (f *Fault) take() bool {
	select {
	case <-f.cleared:
		return false
	default:
	}
	if n := f.fired.Add(1); f.rule.Times > 0 && n > int64(f.rule.Times) {
		f.fired.Add(-1)
		return false
	}
	f.once.Do(func() { close(f.first) })
	return true
}

func (f *Fault) spoil(ctx context.Context) error {
	r := f.rule
	var over <-chan time.Time
	if r.Delay > 0 {
		timer := time.NewTimer(r.Delay)
		defer timer.Stop()
		over = timer.C
	}
	if r.Delay > 0 || r.Hang {
		select {
		case <-over:
		case <-f.cleared:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	if r.Code == codes.OK {
		return nil
	}
	st := status.New(r.Code, r.Message)
	if r.RetryAfter > 0 {
		secs := float32(r.RetryAfter.Seconds())
		if with, err := st.WithDetails(pb.RPCRetryPolicy_builder{RetryAfterSecs: secs}.Build()); err == nil {
			st = with
		}
	}
	return st.Err()
}

// Inject spoils requests from now on.
func (s *Server) Inject(r Rule) *Fault {
	f := newFault(r, nil)
	s.mu.Lock()
	s.faults = append(s.faults, f)
	s.mu.Unlock()
	return f
}

// faultsFor returns what goes wrong with this request now.
func (s *Server) faultsFor(method string, container, late bool) []*Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*Fault
	for _, f := range s.faults {
		r := f.rule
		all := len(r.Methods) == 0 && !strings.HasPrefix(method, blobRequest)
		if r.Late != late || (!all && !slices.Contains(r.Methods, path.Base(method))) {
			continue
		}
		if (r.From == Clients && container) || (r.From == Containers && !container) {
			continue
		}
		if f.take() {
			found = append(found, f)
		}
	}
	return found
}

// Throttle answers the next n requests of clients (0: all until cleared) with RESOURCE_EXHAUSTED; without methods it is
// FunctionMap's. With retryAfter the SDKs wait and come again, by themselves and without end unless told (CODE).
func (s *Server) Throttle(n int, retryAfter time.Duration, methods ...string) *Fault {
	if len(methods) == 0 {
		methods = []string{"FunctionMap"}
	}
	return s.Inject(Rule{Methods: methods, From: Clients, Times: n, Code: codes.ResourceExhausted, RetryAfter: retryAfter,
		Message: "Rate limit exceeded (throttled by fakemodal)."})
}

// RefuseToken answers clients as for a token that has been revoked, until cleared.
func (s *Server) RefuseToken() *Fault {
	return s.Inject(Rule{From: Clients, Code: codes.Unauthenticated, Message: "Token validation failed"})
}

// HoldAnswer lets the next n requests of these methods take effect and keeps their answers back until cleared.
func (s *Server) HoldAnswer(n int, methods ...string) *Fault {
	return s.Inject(Rule{Methods: methods, From: Clients, Times: n, Hang: true, Late: true})
}

// Unavailable drops all clients' connections, and every new one, until cleared. Containers and blobs are not touched:
// at Modal too they talk to something else. Fired counts connections.
func (s *Server) Unavailable() *Fault {
	f := newFault(Rule{}, s.gate.open)
	s.gate.shut(f)
	return f
}

// FailStart makes the next n containers fail in their enter hook with this exception text, without starting them.
func (s *Server) FailStart(n int, exception string) *Fault {
	return s.Inject(Rule{Methods: []string{faultStart}, Times: n, Message: exception})
}

// RefuseReload refuses the next n reloads of a Volume in containers (0: all until cleared), as Modal does while a file of
// it is open there (CODE: volume.py reload, which looks for these words).
func (s *Server) RefuseReload(n int) *Fault {
	return s.Inject(Rule{Methods: []string{"VolumeReload"}, From: Containers, Times: n, Code: codes.FailedPrecondition,
		Message: "there are open files preventing the operation (by fakemodal)"})
}

// RefuseMount refuses to deploy functions that mount a volume at path, as for a folder that is not empty in the image.
// Without it that is done only for folders into which the deploy itself puts local files.
func (s *Server) RefuseMount(path string) *Fault {
	return s.Inject(Rule{Methods: []string{faultMount, path}})
}

// Names of faults that are no RPC's.
const (
	faultStart = "\x00start"
	faultMount = "\x00mount"
)

// fault uses one of the armed faults of this name. s.mu is held.
func (s *Server) fault(name ...string) *Fault {
	for _, f := range s.faults {
		if slices.Equal(f.rule.Methods, name) && f.take() {
			return f
		}
	}
	return nil
}
