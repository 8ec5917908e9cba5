package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
)

var job = activities.Job{ID: "job-1", RunID: "default-test-run-id", Request: comfy.Request{
	Workflow: json.RawMessage(`{"1":{"class_type":"EmptyImage","inputs":{"width":64}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0]}}}`),
}}

func promptInput() activities.PromptInput {
	return activities.PromptInput{
		Job: job, Submission: 1, StartBy: time.Now().Add(time.Hour), Deadline: time.Now().Add(2 * time.Hour),
		Placement: activities.Placement{Pool: backend.Pool{Name: "url"}, RunTimeout: time.Hour, StartTimeout: time.Hour, StallTimeout: time.Minute},
	}
}

func handle(p *backend.Prompt) backend.Handle {
	return backend.Handle{Pool: "url", Server: "http://gpu", PromptID: p.ID, JobID: p.JobID, Submission: p.Submission}
}

func TestPromptIDIsCanonicalAndOfThisSubmissionAlone(t *testing.T) {
	id := activities.PromptID(job, 1)
	parsed, err := uuid.Parse(id)
	require.NoError(t, err)
	require.Equal(t, parsed.String(), id)
	require.Equal(t, id, activities.PromptID(job, 1), "an attempt after a crash finds it again")
	for _, other := range []string{
		activities.PromptID(job, 2),
		activities.PromptID(activities.Job{ID: "job-1", RunID: "run-2"}, 1),
		activities.PromptID(activities.Job{ID: "job-2", RunID: "run-1"}, 1),
	} {
		require.NotEqual(t, id, other)
	}
}

func TestPromptMakesTheHandleDurableFirst(t *testing.T) {
	b := newBench(t)
	beats := make(chan activities.Heartbeat, 1)
	b.env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		var hb activities.Heartbeat
		if details.Get(&hb) == nil {
			beats <- hb
		}
	})
	b.double.run = func(ctx context.Context, p *backend.Prompt, h *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
		require.Nil(t, h)
		require.Equal(t, activities.PromptID(job, 1), p.ID)
		require.NoError(t, rec.Handle(ctx, handle(p)))
		select {
		case hb := <-beats:
			require.Equal(t, handle(p), *hb.Handle)
		case <-time.After(time.Minute):
			t.Error("the handle is not in a heartbeat")
		}
		return &backend.Outcome{Handle: handle(p), Cached: true}, nil
	}
	var out backend.Outcome
	require.NoError(t, b.do(t, comfy.ActivityPrompt, promptInput(), &out))
	require.True(t, out.Cached)
}

// TestHeartbeatsOutliveACancel: the SDK sends what it has held back with the context of the first heartbeat, and a prompt
// that takes longer to stop than the heartbeat timeout would be given up as lost.
func TestHeartbeatsOutliveACancel(t *testing.T) {
	b := newBench(t)
	seen := &heartbeats{}
	b.env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{seen}})
	b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
		require.NoError(t, rec.Handle(ctx, handle(p)))
		return &backend.Outcome{Handle: handle(p)}, nil
	}
	require.NoError(t, b.do(t, comfy.ActivityPrompt, promptInput(), nil))
	require.NotEmpty(t, seen.all)
	for _, ctx := range seen.all {
		require.Nil(t, ctx.Done(), "it can be canceled")
	}
}

// heartbeats keeps the contexts with which heartbeats are sent.
type heartbeats struct {
	interceptor.WorkerInterceptorBase
	mu  sync.Mutex
	all []context.Context
}

func (h *heartbeats) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &inbound{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}, seen: h}
}

type inbound struct {
	interceptor.ActivityInboundInterceptorBase
	seen *heartbeats
}

func (i *inbound) Init(next interceptor.ActivityOutboundInterceptor) error {
	return i.Next.Init(&outbound{ActivityOutboundInterceptorBase: interceptor.ActivityOutboundInterceptorBase{Next: next}, seen: i.seen})
}

type outbound struct {
	interceptor.ActivityOutboundInterceptorBase
	seen *heartbeats
}

func (o *outbound) RecordHeartbeat(ctx context.Context, details ...any) {
	o.seen.mu.Lock()
	o.seen.all = append(o.seen.all, ctx)
	o.seen.mu.Unlock()
	o.Next.RecordHeartbeat(ctx, details...)
}

func TestPromptReattachesByTheHeartbeat(t *testing.T) {
	b := newBench(t)
	h := backend.Handle{Pool: "url", Server: "http://gpu", PromptID: activities.PromptID(job, 1), JobID: "job-1", Submission: 1}
	b.env.SetHeartbeatDetails(activities.Heartbeat{Handle: &h, RunningSince: time.Now()})
	b.double.run = func(_ context.Context, _ *backend.Prompt, got *backend.Handle, _ backend.Recorder) (*backend.Outcome, error) {
		require.Equal(t, &h, got)
		return nil, backend.Errorf(comfy.BackendLost, "the server has forgotten it")
	}
	f, final := failure(t, b.do(t, comfy.ActivityPrompt, promptInput(), nil))
	require.Equal(t, comfy.BackendLost, f.Code)
	require.True(t, final, "the workflow decides about the next submission")
	require.True(t, f.Again)
	require.True(t, f.Ran, "an earlier attempt has seen it run")
}

func TestPromptStopsAtItsLimits(t *testing.T) {
	for name, c := range map[string]struct {
		in      func(*activities.PromptInput)
		running bool
		code    comfy.Code
	}{
		"run":      {func(in *activities.PromptInput) { in.Placement.RunTimeout = time.Second }, true, comfy.Timeout},
		"deadline": {func(in *activities.PromptInput) { in.Deadline = time.Now() }, true, comfy.Timeout},
		"start":    {func(in *activities.PromptInput) { in.StartBy = time.Now() }, false, comfy.BackendUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
				require.NoError(t, rec.Handle(ctx, handle(p)))
				rec.Progress(backend.Update{Running: c.running})
				<-ctx.Done()
				return nil, ctx.Err()
			}
			in := promptInput()
			c.in(&in)
			f, final := failure(t, b.do(t, comfy.ActivityPrompt, in, nil))
			require.Equal(t, c.code, f.Code)
			require.True(t, final)
			require.False(t, f.Again, "another submission would meet the same limit")
			require.Len(t, b.double.canceled, 1, "nothing runs on after the end of its job")
		})
	}
}

// TestPromptThatBeganMeanwhile: a prompt may have begun while nobody followed it. Who goes on with it sees that before it is
// stopped because its time to start is over.
func TestPromptThatBeganMeanwhile(t *testing.T) {
	b := newBench(t)
	h := backend.Handle{Pool: "url", Server: "http://gpu", PromptID: activities.PromptID(job, 1), JobID: "job-1", Submission: 1}
	b.env.SetHeartbeatDetails(activities.Heartbeat{Handle: &h})
	b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
		select { // its server is busy
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * activities.HeartbeatEvery):
		}
		rec.Progress(backend.Update{Running: true})
		return &backend.Outcome{Handle: handle(p)}, nil
	}
	in := promptInput()
	in.StartBy = time.Now().Add(-time.Minute)
	require.NoError(t, b.do(t, comfy.ActivityPrompt, in, nil))
	require.Empty(t, b.double.canceled)
}

// TestPromptThatIsStalledAsItsWorkerStops: it has been interrupted by then, and whoever goes on with it could not tell by whom.
func TestPromptThatIsStalledAsItsWorkerStops(t *testing.T) {
	b := newBench(t)
	stop := make(chan struct{})
	b.env.SetWorkerStopChannel(stop)
	b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
		require.NoError(t, rec.Handle(ctx, handle(p)))
		close(stop)
		<-ctx.Done()
		return nil, &backend.Error{Code: comfy.Timeout, Ran: true, Message: "the prompt showed no sign of life"}
	}
	f, final := failure(t, b.do(t, comfy.ActivityPrompt, promptInput(), nil))
	require.Equal(t, comfy.Timeout, f.Code)
	require.True(t, final)
}

func TestPromptDetachesWhenItsWorkerStops(t *testing.T) {
	for name, closed := range map[string]bool{"the job goes on": false, "the job is closed": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.closed = closed
			ctx, stop := context.WithCancelCause(context.Background())
			b.env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx})
			b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
				require.NoError(t, rec.Handle(ctx, handle(p)))
				stop(errors.New("worker is now shutdown"))
				<-ctx.Done()
				return nil, ctx.Err()
			}
			err := b.do(t, comfy.ActivityPrompt, promptInput(), nil)
			require.Error(t, err)
			if closed {
				require.Len(t, b.double.canceled, 1)
				return
			}
			var app *temporal.ApplicationError
			require.ErrorAs(t, err, &app)
			require.False(t, app.NonRetryable(), "another worker goes on with it")
			require.Empty(t, b.double.canceled, "the prompt runs on")
		})
	}
}

func TestWarmUp(t *testing.T) {
	b := newBench(t)
	var p activities.Placement
	require.NoError(t, b.do(t, comfy.ActivityWarmUp, job, &p))
	require.Equal(t, "url", p.Pool.Name)
	require.Equal(t, time.Hour, p.RunTimeout)

	short := job
	short.Request.TimeoutSeconds = 7
	require.NoError(t, b.do(t, comfy.ActivityWarmUp, short, &p))
	require.Equal(t, 7*time.Second, p.RunTimeout)

	b.double.ready = func() error { return backend.Errorf(comfy.BackendUnavailable, "http://gpu: connection refused") }
	f, final := failure(t, b.do(t, comfy.ActivityWarmUp, job, nil))
	require.Equal(t, comfy.BackendUnavailable, f.Code)
	require.False(t, final, "Temporal asks again")
	require.Contains(t, f.Message, "connection refused")

	b.double.ready = func() error { return backend.Errorf(comfy.InvalidWorkflow, "no such node") }
	f, final = failure(t, b.do(t, comfy.ActivityWarmUp, job, nil))
	require.Equal(t, comfy.InvalidWorkflow, f.Code)
	require.True(t, final)

	other := job
	other.Request.Backend = "elsewhere"
	f, final = failure(t, b.do(t, comfy.ActivityWarmUp, other, nil))
	require.Equal(t, comfy.BackendUnavailable, f.Code)
	require.False(t, final)
}

// TestWarmUpOverflows: a full pool hands over to the next one, and takes the job where that is full or away, too.
func TestWarmUpOverflows(t *testing.T) {
	var b *bench
	var second *double
	begin := func(placedFor time.Duration) {
		second = &double{name: "second", slots: 1, gpus: []string{"H100"}}
		b = newBenchWith(t, func(o *activities.Options) {
			o.Backends, o.PlacedFor = append(o.Backends, second), placedFor
		})
	}
	place := func(id, gpu string) string {
		j := job
		j.ID, j.Request.GPU = id, gpu
		var p activities.Placement
		require.NoError(t, b.do(t, comfy.ActivityWarmUp, j, &p))
		return p.Pool.Name
	}
	begin(time.Hour)
	require.Equal(t, "url", place("a", ""))
	require.Equal(t, "url", place("b", ""))
	require.Equal(t, "second", place("c", ""), "two are on their way to the first")
	require.Equal(t, "url", place("d", ""), "both are full: back to the first")
	require.Equal(t, "second", place("gpu", "h100"), "the first offers no such GPU")

	begin(300 * time.Millisecond)
	running, end := make(chan struct{}, 2), make(chan struct{})
	b.double.run = func(_ context.Context, p *backend.Prompt, _ *backend.Handle, _ backend.Recorder) (*backend.Outcome, error) {
		running <- struct{}{}
		<-end
		return &backend.Outcome{Handle: backend.Handle{JobID: p.JobID}}, nil
	}
	var ends sync.WaitGroup
	for _, id := range []string{"a", "b"} {
		ends.Go(func() {
			j := job
			j.ID = id
			_ = b.beside().do(t, comfy.ActivityPrompt, activities.PromptInput{Job: j, Submission: 1, StartBy: time.Now().Add(time.Hour), Deadline: time.Now().Add(time.Hour),
				Placement: activities.Placement{Pool: b.double.Pool(), RunTimeout: time.Hour}}, nil)
		})
		<-running
	}
	require.Equal(t, "second", place("gpu", "h100"))
	require.Eventually(t, func() bool { return place("d", "") == "second" }, time.Minute, 50*time.Millisecond, "a placement does not count for ever")
	second.ready = func() error { return backend.Errorf(comfy.BackendUnavailable, "no container") }
	require.Equal(t, "url", place("e", ""))
	second.ready = nil
	close(end)
	ends.Wait()
	require.Eventually(t, func() bool { return place("f", "") == "url" }, time.Minute, 50*time.Millisecond, "the first has room again")
}

func TestWarmUpRefusesAGraphThatIsNone(t *testing.T) {
	b := newBench(t)
	bad := job
	bad.Request.Workflow = json.RawMessage(`{"1":{"class_type":"SaveImage"}}`)
	f, final := failure(t, b.do(t, comfy.ActivityWarmUp, bad, nil))
	require.Equal(t, comfy.InvalidWorkflow, f.Code)
	require.True(t, final)
	require.Contains(t, f.NodeErrors, "1")
}

func TestPromptKeepsItsOutcomeSmall(t *testing.T) {
	b := newBench(t)
	var texts []backend.Text
	b.double.run = func(_ context.Context, p *backend.Prompt, _ *backend.Handle, _ backend.Recorder) (*backend.Outcome, error) {
		return &backend.Outcome{Handle: handle(p), Texts: texts}, nil
	}
	long := strings.Repeat("x", 3<<20)
	texts = append(texts, backend.Text{NodeID: "1", Text: "short"}, backend.Text{NodeID: "2", Text: long})
	for range 100 {
		texts = append(texts, backend.Text{NodeID: "3", Text: strings.Repeat("y", 8000)})
	}
	var out backend.Outcome
	require.NoError(t, b.do(t, comfy.ActivityPrompt, promptInput(), &out))
	require.Equal(t, "short", out.Texts[0].Text)
	require.Empty(t, out.Texts[1].Text)
	require.Equal(t, long, string(b.store.blobs[out.Texts[1].Blob.Key]))
	raw, err := json.Marshal(out)
	require.NoError(t, err)
	require.Less(t, len(raw), 512<<10)
	var c activities.Collected
	require.NoError(t, b.do(t, comfy.ActivityCollect, activities.CollectInput{JobID: "job-1", Outcome: out}, &c))
	require.Equal(t, out.Texts[1].Blob.Key, c.Texts[1].Ref)
	require.EqualValues(t, len(long), c.Texts[1].Size)
	require.Equal(t, "short", c.Texts[0].Text)

	b.double.run = func(_ context.Context, p *backend.Prompt, _ *backend.Handle, _ backend.Recorder) (*backend.Outcome, error) {
		return &backend.Outcome{Handle: handle(p), Files: make([]backend.File, 5000)}, nil
	}
	f, final := failure(t, b.do(t, comfy.ActivityPrompt, promptInput(), nil))
	require.Equal(t, comfy.InvalidWorkflow, f.Code)
	require.True(t, final)
}

// TestStoreAwayAtTheEnd: a prompt has ended well, and the store does not take its text: the next attempt finds it again.
func TestStoreAwayAtTheEnd(t *testing.T) {
	b := newBench(t)
	var last activities.Heartbeat
	b.env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) { _ = details.Get(&last) })
	b.store.err = errors.New("away")
	b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
		require.NoError(t, rec.Handle(ctx, handle(p)))
		rec.Progress(backend.Update{Running: true})
		return &backend.Outcome{Handle: handle(p), Texts: []backend.Text{{NodeID: "1", Text: strings.Repeat("x", 9<<10)}}}, nil
	}
	f, final := failure(t, b.do(t, comfy.ActivityPrompt, promptInput(), nil))
	require.Equal(t, comfy.Storage, f.Code)
	require.False(t, final)
	require.NotNil(t, last.Handle)
}

// TestPromptThatCannotBeStopped is told where it costs money, so that the job goes on trying.
func TestPromptThatCannotBeStopped(t *testing.T) {
	b := newBench(t)
	b.double.cancelErr, b.double.meter = errors.New("no route to the backend"), true
	b.double.run = func(ctx context.Context, p *backend.Prompt, _ *backend.Handle, rec backend.Recorder) (*backend.Outcome, error) {
		if err := rec.Handle(ctx, backend.Handle{Pool: "url", PromptID: p.ID, JobID: p.JobID, CallID: "fc-1"}); err != nil {
			return nil, err
		}
		rec.Progress(backend.Update{Running: true})
		<-ctx.Done()
		return nil, ctx.Err()
	}
	err := b.do(t, comfy.ActivityPrompt, activities.PromptInput{Job: job, Submission: 1, StartBy: time.Now().Add(time.Hour), Deadline: time.Now().Add(time.Hour),
		Placement: activities.Placement{Pool: b.double.Pool(), RunTimeout: time.Millisecond}}, nil)
	f, final := failure(t, err)
	require.Equal(t, comfy.Timeout, f.Code)
	require.True(t, final)
	require.Equal(t, "fc-1", activities.EndingOf(err).Unstopped.CallID)
	require.False(t, activities.EndingOf(err).Stopped)

	require.Equal(t, "fc-2", activities.EndingOf(temporal.NewCanceledError("", backend.Handle{PromptID: "p", CallID: "fc-2"}, int64(1500))).Unstopped.CallID)
	stopped := activities.EndingOf(temporal.NewCanceledError("stopped", backend.Handle{}, int64(1500)))
	require.Nil(t, stopped.Unstopped)
	require.Equal(t, 1500*time.Millisecond, stopped.Ran)
	require.True(t, stopped.Stopped)
	require.Positive(t, activities.EndingOf(err).Ran, "how long it ran")

	stop := activities.PromptInput{Job: job, Submission: 1, Placement: activities.Placement{Pool: b.double.Pool()}, Earlier: &activities.Heartbeat{Handle: activities.EndingOf(err).Unstopped}}
	_, final = failure(t, b.do(t, comfy.ActivityStop, stop, nil))
	require.False(t, final, "Temporal tries again")
	b.double.meter = false
	require.NoError(t, b.do(t, comfy.ActivityStop, stop, nil), "where it costs nothing, the job ends")
	b.double.cancelErr, b.double.meter = nil, true
	require.NoError(t, b.do(t, comfy.ActivityStop, stop, nil))
	require.Equal(t, "fc-1", b.double.canceled[len(b.double.canceled)-1].CallID)
}

// TestFinalIsFinal, whatever the code means elsewhere.
func TestFinalIsFinal(t *testing.T) {
	for _, final := range []bool{false, true} {
		b := newBench(t)
		b.double.run = func(context.Context, *backend.Prompt, *backend.Handle, backend.Recorder) (*backend.Outcome, error) {
			return nil, &backend.Error{Code: comfy.BackendLost, Message: "its container ended three times", Ran: true, Restarts: 2, Final: final}
		}
		f, _ := failure(t, b.do(t, comfy.ActivityPrompt, activities.PromptInput{Job: job, Submission: 1, StartBy: time.Now().Add(time.Hour),
			Deadline: time.Now().Add(time.Hour), Placement: activities.Placement{Pool: b.double.Pool(), RunTimeout: time.Hour}}, nil))
		require.Equal(t, !final, f.Again)
		require.Equal(t, 2, f.Restarts)
	}
}

func TestStopFindsThePromptByItsID(t *testing.T) {
	b := newBench(t)
	require.NoError(t, b.do(t, comfy.ActivityStop, promptInput(), nil))
	in := promptInput()
	h := backend.Handle{Pool: "url", Server: "http://gpu", PromptID: "p", JobID: "job-1"}
	in.Earlier = &activities.Heartbeat{Handle: &h}
	require.NoError(t, b.do(t, comfy.ActivityStop, in, nil))
	require.Len(t, b.double.canceled, 2)
	require.Equal(t, activities.PromptID(job, 1), b.double.canceled[0].PromptID)
	require.Equal(t, h, b.double.canceled[1])
}

func TestStoreAwayBeforeThePost(t *testing.T) {
	b := newBench(t)
	b.double.run = func(context.Context, *backend.Prompt, *backend.Handle, backend.Recorder) (*backend.Outcome, error) {
		return nil, backend.Errorf(comfy.Storage, "the input cannot be read")
	}
	f, _ := failure(t, b.do(t, comfy.ActivityPrompt, promptInput(), nil))
	require.Equal(t, comfy.Storage, f.Code)
	require.True(t, f.Again, "nothing has run yet")

	in := job
	in.Request.Workflow, in.Request.WorkflowRef = nil, "graphs/alice/gone"
	f, final := failure(t, b.do(t, comfy.ActivityWarmUp, in, nil))
	require.Equal(t, comfy.Storage, f.Code)
	require.True(t, final, "what is gone does not come back")
}
