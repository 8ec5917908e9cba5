package modal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakemodal"
)

// buffer is written to from many goroutines.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestLeavingBeforeTheCall: a prompt that was not handed to Modal when the context ended says so: the next attempt need not
// bar it, and count it as lost.
func TestLeavingBeforeTheCall(t *testing.T) {
	w := newWorld(t, nil)
	w.ready(w.b)
	ctx, leave := context.WithCancel(w.ctx())
	p := w.prompt(nil)
	p.Inputs = []backend.Input{{Name: "a.png", Size: 1, SHA256: strings.Repeat("0", 64), Open: func(ctx context.Context) (io.ReadCloser, error) {
		leave()
		return nil, ctx.Err()
	}}}
	calls := w.m.Count("FunctionMap")
	_, err := w.b.Run(ctx, p, nil, w.rec)
	require.ErrorIs(t, err, context.Canceled)
	var be *backend.Error
	require.ErrorAs(t, err, &be)
	require.True(t, be.Unsent)
	require.Equal(t, calls, w.m.Count("FunctionMap"))

	ctx, leave = context.WithCancel(w.ctx())
	held := w.m.HoldAnswer(1, "FunctionMap")
	defer held.Clear()
	end := w.run(ctx, w.prompt(nil), nil)
	require.NoError(t, held.Wait(w.ctx()))
	leave()
	require.ErrorAs(t, (<-end).err, &be)
	require.False(t, be.Unsent, "Modal has it")
}

// TestUploadBreaksOff: the signed address to which inputs go stands in no error and in no log.
func TestUploadBreaksOff(t *testing.T) {
	var log buffer
	w := newWorld(t, nil, func(_ *fakemodal.Server, o *Options, _ *timing) {
		o.SDKLog = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	w.ready(w.b)
	fault := w.m.Inject(fakemodal.Rule{Methods: []string{"PUT"}, Code: codes.DataLoss})
	p := w.prompt(nil)
	data := make([]byte, 5<<20)
	sum := sha256.Sum256(data)
	p.Inputs = []backend.Input{{Name: "a.png", Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]),
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}}
	e := w.fails(w.run(w.ctx(), p, nil), comfy.BackendUnavailable)
	require.Positive(t, fault.Fired())
	require.Contains(t, e.Message, "upload to Modal's blob store failed")
	require.Contains(t, log.String(), "blob upload failed (attempt 1/3)")
	texts := []string{log.String(), e.Message}
	var chain func(err error)
	chain = func(err error) {
		texts = append(texts, err.Error())
		switch x := err.(type) {
		case interface{ Unwrap() error }:
			if x.Unwrap() != nil {
				chain(x.Unwrap())
			}
		case interface{ Unwrap() []error }:
			for _, one := range x.Unwrap() {
				chain(one)
			}
		}
	}
	chain(e)
	for _, text := range texts {
		require.NotContains(t, text, fakemodal.Signature)
		require.NotContains(t, text, "Amz")
	}
	require.NotContains(t, e.Error(), "/blob/")
	fault.Clear()
	w.succeeds(w.run(w.ctx(), p, nil))
}

// TestThrottledForLong: one submission is spent on learning that Modal takes no calls; then the job waits in front of it.
func TestThrottledForLong(t *testing.T) {
	w := newWorld(t, nil, func(_ *fakemodal.Server, _ *Options, tm *timing) {
		tm.aside, tm.asideMost = 3*time.Second, 3*time.Second // so that Ready is asked before it is over
	})
	w.ready(w.b)
	const times = 4
	fault := w.m.Throttle(times, 0)
	var says []string
	submissions := 0
	for done := false; !done; {
		p := w.prompt(nil)
		for {
			err := w.b.Ready(w.ctx(), p)
			if err == nil {
				break
			}
			says = append(says, errorOf(t, err, comfy.BackendUnavailable).Message)
			require.NoError(t, sleep(w.ctx(), 10*time.Millisecond))
		}
		submissions++
		r := w.ends(w.run(w.ctx(), p, nil))
		if done = r.err == nil; !done {
			errorOf(t, r.err, comfy.BackendUnavailable)
			require.Contains(t, errorOf(t, w.b.Ready(w.ctx(), p), comfy.BackendUnavailable).Message, "takes no more at the moment")
		}
	}
	require.Equal(t, times, fault.Fired())
	require.Equal(t, 2, submissions)
	require.Contains(t, strings.Join(says, "\n"), "takes no more at the moment")
}

// TestReadyIsQuick, whatever Modal does; and a prompt is handed over meanwhile.
func TestReadyIsQuick(t *testing.T) {
	w := newWorld(t, nil, func(_ *fakemodal.Server, _ *Options, tm *timing) { tm.statsWait = 500 * time.Millisecond })
	w.well(w.b)
	quick := func() *backend.Error {
		began := time.Now()
		err := w.b.Ready(w.ctx(), w.prompt(nil))
		require.Less(t, time.Since(began), 20*time.Second)
		return errorOf(t, err, comfy.BackendUnavailable)
	}
	look := w.m.Inject(fakemodal.Rule{Methods: []string{"FunctionGetCurrentStats"}, From: fakemodal.Clients, Hang: true})
	require.Contains(t, quick().Message, "has not said yet")
	look.Clear()
	warm := w.m.Inject(fakemodal.Rule{Methods: []string{"FunctionMap"}, From: fakemodal.Clients, Times: 1, Hang: true})
	require.Eventually(t, func() bool { return warm.Fired() == 1 || quick() == nil }, patience, 10*time.Millisecond)
	for n, starting := 0, 0; starting < 3; n++ {
		says := quick().Message
		if strings.Contains(says, "has not said yet") { // this process was held up
			require.Less(t, n, 100, says)
			continue
		}
		require.Contains(t, says, "is starting")
		starting++
	}
	w.succeeds(w.run(w.ctx(), w.prompt(nil), nil))
	require.Empty(t, w.calls("warm"))
}

// TestDoubtfulWarmUp: nobody knows whether Modal has it, so another would perhaps be a second GPU.
func TestDoubtfulWarmUp(t *testing.T) {
	w := newWorld(t, nil, func(_ *fakemodal.Server, _ *Options, tm *timing) { tm.spawn, tm.hold = 3*time.Second, time.Hour })
	w.well(w.b)
	lost := w.m.Inject(fakemodal.Rule{Methods: []string{"FunctionMap"}, From: fakemodal.Clients, Hang: true})
	var e *backend.Error
	require.Eventually(t, func() bool {
		e = errorOf(t, w.b.Ready(w.ctx(), w.prompt(nil)), comfy.BackendUnavailable)
		return strings.Contains(e.Message, "nobody knows whether")
	}, patience, 20*time.Millisecond)
	tries := lost.Fired()
	for range 5 {
		require.Contains(t, errorOf(t, w.b.Ready(w.ctx(), w.prompt(nil)), comfy.BackendUnavailable).Message, "nobody knows whether")
	}
	require.Equal(t, tries, lost.Fired())
	lost.Clear()
	w.succeeds(w.run(w.ctx(), w.prompt(nil), nil))
	w.ready(w.b) // there is a container
	require.Empty(t, w.calls("warm"))
}

// TestModalKeepsSomethingToItself: what Modal need not say is not needed.
func TestModalKeepsSomethingToItself(t *testing.T) {
	w := newWorld(t, nil, func(m *fakemodal.Server, _ *Options, _ *timing) {
		m.Inject(fakemodal.Rule{Methods: []string{"FunctionGetCurrentStats"}, From: fakemodal.Clients, Code: codes.PermissionDenied, Message: "no"})
	})
	w.well(w.b)
	require.NoError(t, w.b.Ready(w.ctx(), w.prompt(nil)))
	w.succeeds(w.run(w.ctx(), w.prompt(nil), nil))
	require.Empty(t, w.calls("warm"))

	before := w.b.deployment()
	fault := w.m.Inject(fakemodal.Rule{Methods: []string{"AppGetLifecycle"}, From: fakemodal.Clients, Code: codes.DataLoss, Message: "odd"})
	require.Eventually(t, func() bool { return fault.Fired() > 2 }, patience, 10*time.Millisecond)
	require.True(t, w.b.Servers()[0].Healthy)
	require.Same(t, before, w.b.deployment(), "it is not another deploy for that")
	other := w.another()
	w.well(other)
}

// TestFewStreams: the questions that Modal holds for each job do not keep the short ones from being asked, on a server
// that lets a connection have 20 requests.
func TestFewStreams(t *testing.T) {
	const jobs = 15
	const soon = 45 * time.Second // before the first held question ends and makes room: the SDK asks a queue for 50 s at a time
	w := newWorld(t, func(o *fakemodal.Options) { o.MaxStreams = 20 }, func(_ *fakemodal.Server, _ *Options, tm *timing) {
		tm.poll, tm.channel, tm.polls, tm.look = time.Minute, time.Minute, 16, time.Hour
	})
	w.ready(w.b)
	var ends []chan result
	for range jobs {
		ends = append(ends, runOn(w.ctx(), w.b, w.prompt(script{"sleep": long}), nil, backendtest.NewRecorder()))
	}
	require.Eventually(t, func() bool { return len(w.calls("run")) == jobs }, soon, 10*time.Millisecond, "a call cannot be handed over")
	polls := w.m.Count("FunctionGetOutputs")
	require.Eventually(t, func() bool { return w.m.Count("QueueGet") >= jobs && w.m.Count("FunctionGetOutputs") >= jobs }, soon, 10*time.Millisecond, "%d", polls)
	ctx, done := context.WithTimeout(w.ctx(), soon)
	defer done()
	var group sync.WaitGroup
	for _, c := range w.calls("run") {
		group.Go(func() {
			if err := w.b.Cancel(ctx, backend.Handle{CallID: c.ID}); err != nil {
				t.Errorf("%v", err)
			}
		})
	}
	group.Wait()
	for _, end := range ends {
		w.fails(end, comfy.Canceled)
	}
	w.b.lines.mu.Lock()
	defer w.b.lines.mu.Unlock()
	require.Greater(t, len(w.b.lines.all), 1)
	for _, x := range w.b.lines.all {
		require.Zero(t, x.used)
	}
}

// TestClosedLines: no connection is opened once the backend is closed.
func TestClosedLines(t *testing.T) {
	l := &lines{most: 1, open: func() (*client, error) { return nil, errors.New("asked") }}
	_, err := l.take()
	require.EqualError(t, err, "asked")
	l.close()
	_, err = l.take()
	require.ErrorIs(t, err, context.Canceled)
}
