package comfyhttp

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/comfy"
)

func TestStall(t *testing.T) {
	type told struct {
		server string
		why    error
	}
	begin := func(t *testing.T) (*fixture, chan told) {
		stalls := make(chan told, 10)
		f := setup(t, func(o *Options, _ *timing) {
			o.OnStall = func(server string, why error) { stalls <- told{server, why} }
		})
		return f, stalls
	}
	impatient := func(f *fixture, graph string) *backend.Prompt {
		p := f.prompt(graph)
		p.StallTimeout = time.Second
		return p
	}
	healthy := func(f *fixture) bool { return f.b.Servers()[0].Healthy }

	t.Run("a stuck node", func(t *testing.T) {
		f, stalls := begin(t)
		gate := f.s.Hold("SaveImage")
		p := impatient(f, solid(1))
		e := f.fails(f.run(p, nil), comfy.Timeout)
		require.True(t, e.Ran)
		require.Equal(t, "2", e.NodeID)
		require.NotEmpty(t, f.s.Interrupts())
		require.Equal(t, p.ID, f.s.Interrupts()[0])
		s := <-stalls
		require.Equal(t, f.s.URL, s.server)
		require.Error(t, s.why)
		require.False(t, healthy(f))
		errorOf(t, f.b.Ready(t.Context(), p), comfy.BackendUnavailable)
		require.Contains(t, f.b.Servers()[0].Problem, "no sign of life")
		require.NoError(t, f.b.servers[0].get(t.Context(), patience, "/prompt", &comfyui.QueueInfo{}), "the server itself answers")
		gate.Open()
		require.Eventually(t, func() bool { return healthy(f) }, patience, time.Millisecond, "the prompt is gone, and the server not taken back")
	})
	t.Run("poisoned", func(t *testing.T) {
		f, stalls := begin(t)
		f.s.Poison()
		dead := f.run(impatient(f, solid(1)), nil)
		f.s.Await("the thread to die", func() bool { return f.s.TotalRuns() == 1 })
		require.Equal(t, 1, f.s.TotalRuns())
		waits := f.run(impatient(f, solid(2)), nil)
		require.Error(t, f.fails(dead, comfy.Timeout))
		require.False(t, f.fails(waits, comfy.Timeout).Ran)
		<-stalls
		<-stalls
		require.Never(t, func() bool { return healthy(f) }, 200*time.Millisecond, 10*time.Millisecond)
		f.s.Restart()
		require.Eventually(t, func() bool { return healthy(f) }, patience, time.Millisecond)
		f.succeeds(f.run(f.prompt(solid(3)), nil))
	})
	t.Run("swallowed", func(t *testing.T) {
		f, stalls := begin(t)
		f.b.servers[0].t.idles = time.Second
		f.s.Swallow()
		e := f.fails(f.run(f.prompt(solid(1)), nil), comfy.BackendLost)
		require.True(t, e.Ran, "it counts as a run, or it would end one ComfyUI after the other")
		require.Contains(t, e.Message, "lost the prompt although it was not restarted")
		began := time.Now()
		second, third := f.run(f.prompt(solid(2)), nil), f.run(f.prompt(solid(3)), nil)
		for _, end := range []chan result{second, third} {
			waits := f.fails(end, comfy.BackendLost)
			require.False(t, waits.Ran)
			require.Contains(t, waits.Message, "execution thread has ended")
		}
		require.Less(t, time.Since(began), 30*time.Second, "not as long as a stall may take")
		<-stalls
		require.False(t, healthy(f))
		require.Contains(t, f.b.Servers()[0].Problem, "restarted")
		f.s.Kill()
		require.Eventually(t, func() bool { return !strings.Contains(f.b.Servers()[0].Problem, "restarted") }, patience, time.Millisecond)
		f.s.Start()
		require.Eventually(t, func() bool { return healthy(f) }, 2*patience, 10*time.Millisecond, "after the rest that three lost prompts cost it")
		f.succeeds(f.run(f.prompt(solid(3)), nil))
	})
	t.Run("a stranger's dead prompt", func(t *testing.T) {
		f, stalls := begin(t)
		f.s.Poison()
		stranger := f.prompt(solid(1))
		body, err := comfyui.Body(stranger, comfyui.NewPlan(stranger.Graph, nil), nil, false)
		require.NoError(t, err)
		_, err = f.b.servers[0].call(t.Context(), patience, "POST", "/prompt", body)
		require.NoError(t, err)
		e := f.fails(f.run(impatient(f, solid(2)), nil), comfy.Timeout)
		require.False(t, e.Ran)
		<-stalls
		require.Empty(t, f.s.Interrupts(), "somebody else's prompt was interrupted")
		require.Zero(t, f.s.Waiting())
		require.Never(t, func() bool { return healthy(f) }, 200*time.Millisecond, 10*time.Millisecond)
	})
	t.Run("a silent node survives", func(t *testing.T) {
		f, stalls := begin(t)
		gate := f.s.Hold("SaveImage")
		p := f.prompt(solid(1))
		p.StallTimeout = 0 // the default of ten minutes
		end := f.run(p, nil)
		gate.Reached()
		for range 3 {
			asked := f.s.Requests("GET /queue")
			f.s.Await("looks", func() bool { return f.s.Requests("GET /queue") > asked+1 })
		}
		gate.Open()
		f.succeeds(end)
		require.Empty(t, stalls)
	})
	t.Run("progress is life", func(t *testing.T) {
		f, stalls := begin(t)
		f.s.Step(100 * time.Millisecond)
		p := impatient(f, tiled(75)) // seven seconds and a half in all
		waiting := impatient(f, solid(2))
		p.StallTimeout, waiting.StallTimeout = 5*time.Second, 5*time.Second
		end := f.run(p, nil)
		f.s.Await("the first to run", func() bool { return f.s.Runs(p.ID) == 1 })
		waits := f.run(waiting, nil)
		f.succeeds(end)
		f.succeeds(waits)
		require.Empty(t, stalls)
	})
	t.Run("a sign that is not read yet", func(t *testing.T) {
		f, stalls := begin(t)
		p := f.prompt(solid(1))
		p.StallTimeout = time.Nanosecond
		r := f.b.newRun(t.Context(), f.b.servers[0], p, backend.Handle{Server: f.s.URL, PromptID: p.ID}, f.rec)
		r.started, r.sock = true, &socket{events: make(chan event, 1)}
		r.sock.events <- event{kind: "progress"}
		require.NoError(t, r.stalled(t.Context()))
		require.Empty(t, stalls)
		<-r.sock.events
		errorOf(t, r.stalled(t.Context()), comfy.Timeout)
		require.Len(t, stalls, 1)
	})
}
