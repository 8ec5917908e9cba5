package comfyhttp

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestWithoutSocket: F8, the history decides.
func TestWithoutSocket(t *testing.T) {
	for name, spoil := range map[string]func(s *fakecomfy.Server){
		"silent":  func(s *fakecomfy.Server) { s.Mute(true) },
		"refused": func(s *fakecomfy.Server) { s.NoSockets(true) },
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, func(_ *Options, tm *timing) { tm.socketReady = 500 * time.Millisecond })
			spoil(f.s)
			gate := f.s.Hold("SaveImage")
			p := f.prompt(solid(1))
			end := f.run(p, nil)
			gate.Reached()
			before := f.s.Requests("GET /queue")
			f.s.Await("a look at the queue, which tells that it runs", func() bool { return f.s.Requests("GET /queue") > before+1 })
			gate.Open()
			require.Len(t, f.succeeds(end).Files, 1)
			require.Equal(t, 1, f.s.Runs(p.ID))
			u := f.rec.Updates()
			require.True(t, u[len(u)-1].Running)
		})
	}
}

func TestSocketBreaks(t *testing.T) {
	f := setup(t, nil)
	gate := f.s.Hold("SaveImage")
	end := f.run(f.prompt(solid(1)), nil)
	gate.Reached()
	f.s.CloseSockets()
	f.s.Await("a new socket", func() bool { return f.s.Sockets() == 1 })
	gate.Open()
	f.succeeds(end)
}

// TestDeafSocket: a server that has dropped a socket from its table says nothing on it for ever.
func TestDeafSocket(t *testing.T) {
	f := setup(t, func(_ *Options, tm *timing) { tm.deaf = 50 * time.Millisecond })
	gate := f.s.Hold("SaveImage")
	p := f.prompt(solid(1))
	end := f.run(p, nil)
	gate.Reached()
	f.s.Mute(true)
	f.s.CloseSockets()
	f.s.Await("a deaf socket", func() bool { return f.s.Sockets() == 1 })
	opened := f.s.Requests("GET /ws")
	f.s.Mute(false)
	f.s.Broadcast("status", map[string]any{}) // it is open, but says nothing about us
	f.s.Await("the socket to be opened anew", func() bool { return f.s.Requests("GET /ws") > opened })
	gate.Open()
	f.succeeds(end)
}

// TestOrdinaryJob asks for as little as it can.
func TestOrdinaryJob(t *testing.T) {
	f := setup(t, func(_ *Options, tm *timing) {
		tm.probe, tm.queueQuiet, tm.queueBlind, tm.socketReady = time.Hour, time.Hour, time.Hour, patience
	})
	f.succeeds(f.run(f.prompt(solid(1)), nil))
	require.Zero(t, f.s.Requests("GET /queue"), "the queue holds all workflows")
	require.Equal(t, 1, f.s.Requests("GET /object_info"))
	require.LessOrEqual(t, f.s.Requests("GET /ws"), 1)
}

// TestWaitingJob learns its place from the socket.
func TestWaitingJob(t *testing.T) {
	f := setup(t, func(_ *Options, tm *timing) {
		tm.probe, tm.queueQuiet, tm.queueBlind, tm.socketReady = time.Hour, time.Hour, time.Hour, patience
	})
	gate := f.s.Hold("SaveImage")
	first := f.run(f.prompt(solid(1)), nil)
	gate.Reached()
	f.started()
	f.rec = newRecorder()
	second := f.prompt(solid(2))
	waits := f.run(second, nil)
	require.Eventually(t, func() bool {
		u := f.rec.Updates()
		return len(u) > 0 && !u[0].Running && u[0].QueuePosition != nil && *u[0].QueuePosition == 0
	}, patience, time.Millisecond)
	asked := f.s.Requests("GET /history/" + second.ID)
	f.s.Await("more looks", func() bool { return f.s.Requests("GET /history/"+second.ID) > asked+3 })
	require.Zero(t, f.s.Requests("GET /queue"))
	gate.Open()
	f.succeeds(first)
	f.succeeds(waits)
}

// TestForgetStatus: an empty queue of before the post says nothing about the prompt.
func TestForgetStatus(t *testing.T) {
	r := &run{sock: &socket{events: make(chan event, 3)}, frames: newFrames(), s: &server{t: quick()}}
	r.sock.events <- event{kind: "up"}
	r.sock.events <- event{kind: "status"}
	r.forgetStatus()
	require.Empty(t, r.sock.events)
	require.True(t, r.linked)
	require.False(t, r.frames.gap)
	r.sock.events <- event{kind: "down"}
	r.forgetStatus()
	require.True(t, r.frames.gap)
}

func TestHistoryComesLate(t *testing.T) {
	f := setup(t, nil)
	gate := f.s.HoldHistory()
	p := f.prompt(solid(1))
	end := f.run(p, nil)
	gate.Reached()
	asked := f.s.Requests("GET /history/" + p.ID)
	f.s.Await("more looks", func() bool { return f.s.Requests("GET /history/"+p.ID) > asked+2 })
	gate.Open()
	require.Len(t, f.succeeds(end).Files, 1)
}

// TestRestart: F7, a prompt that nobody knows is not one that has ended.
func TestRestart(t *testing.T) {
	t.Run("running", func(t *testing.T) {
		f := setup(t, nil)
		gate := f.s.Hold("SaveImage")
		end := f.run(f.prompt(solid(1)), nil)
		gate.Reached()
		f.started()
		f.s.Restart()
		require.True(t, f.fails(end, comfy.BackendLost).Ran)
	})
	t.Run("waiting", func(t *testing.T) {
		// Long enough for the end of the socket to be heard before the second look.
		f := setup(t, func(_ *Options, tm *timing) { tm.absent = time.Second })
		gate := f.s.Hold("SaveImage")
		end := f.run(f.prompt(solid(1)), nil)
		gate.Reached()
		f.started()
		waits := f.run(f.prompt(solid(2)), nil)
		f.s.Await("the second in the queue", func() bool { return f.s.Waiting() == 1 })
		f.s.Restart()
		require.True(t, f.fails(end, comfy.BackendLost).Ran)
		require.False(t, f.fails(waits, comfy.BackendLost).Ran)
	})
	t.Run("taken out of the queue", func(t *testing.T) {
		f := setup(t, nil)
		gate := f.s.Hold("SaveImage")
		end := f.run(f.prompt(solid(1)), nil)
		gate.Reached()
		p := f.prompt(solid(2))
		waits := f.run(p, nil)
		f.s.Await("the second in the queue", func() bool { return f.s.Waiting() == 1 })
		require.NoError(t, f.b.servers[0].dequeue(t.Context(), p.ID))
		require.False(t, f.fails(waits, comfy.BackendLost).Ran)
		gate.Open()
		f.succeeds(end)
	})
}

// TestServerDies: F6 and F10.
func TestServerDies(t *testing.T) {
	t.Run("for good", func(t *testing.T) {
		f := setup(t, nil)
		gate := f.s.Hold("SaveImage")
		end := f.run(f.prompt(solid(1)), nil)
		gate.Reached()
		f.started()
		f.s.Kill()
		e := f.fails(end, comfy.BackendLost)
		require.True(t, e.Ran)
		require.Contains(t, e.Message, "not answered")
		require.Eventually(t, func() bool { return f.b.Ready(t.Context(), f.prompt(solid(1))) != nil }, patience, time.Millisecond)
		errorOf(t, f.b.Ready(t.Context(), f.prompt(solid(1))), comfy.BackendUnavailable)
	})
	t.Run("for a moment", func(t *testing.T) {
		log, said := logtest.NewNullLogger()
		log.SetLevel(logrus.DebugLevel)
		f := setup(t, func(o *Options, tm *timing) { o.Log, tm.refused, tm.hung = log, time.Hour, time.Hour })
		gate := f.s.Hold("SaveImage")
		p := f.prompt(solid(1))
		end := f.run(p, nil)
		gate.Reached()
		f.s.Stop()
		gate.Open()
		f.s.Await("the end", func() bool { return f.s.Has(p.ID) })
		f.s.Await("a look in vain", func() bool {
			return slices.ContainsFunc(said.AllEntries(), func(e *logrus.Entry) bool { return e.Message == "no answer about the prompt" })
		})
		f.s.Start()
		f.succeeds(end)
		require.Equal(t, 1, f.s.Runs(p.ID))
	})
	t.Run("hangs for good", func(t *testing.T) {
		f := setup(t, func(_ *Options, tm *timing) { tm.call, tm.hung, tm.probe = time.Second, 3*time.Second, time.Hour })
		gate := f.s.Hold("SaveImage")
		end := f.run(f.prompt(solid(1)), nil)
		gate.Reached()
		f.started()
		f.s.HoldHTTP()
		require.True(t, f.fails(end, comfy.BackendLost).Ran)
	})
	t.Run("hangs for a moment", func(t *testing.T) {
		f := setup(t, func(_ *Options, tm *timing) { tm.call, tm.hung, tm.probe = time.Second, time.Hour, time.Hour })
		gate := f.s.Hold("SaveImage")
		p := f.prompt(solid(1))
		end := f.run(p, nil)
		gate.Reached()
		hang := f.s.HoldHTTP()
		hang.Reached()
		asked := f.s.Requests("GET /history/" + p.ID)
		f.s.Await("tries", func() bool { return f.s.Requests("GET /history/"+p.ID) > asked+2 })
		hang.Open()
		gate.Open()
		f.succeeds(end)
		require.Equal(t, 1, f.s.Runs(p.ID))
	})
}

func TestNodeErrors(t *testing.T) {
	for name, c := range map[string]struct {
		exception, message string
		code               comfy.Code
		has                string
	}{
		"ordinary":   {"RuntimeError", "shape '/a/b' is bad at /srv/comfyui/custom_nodes/x/nodes.py", comfy.NodeFailed, "at nodes.py"},
		"cuda":       {"torch.OutOfMemoryError", "Allocation on device", comfy.OutOfMemory, "Allocation"},
		"old cuda":   {"torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to allocate 20 GiB", comfy.OutOfMemory, "20 GiB"},
		"python":     {"MemoryError", "", comfy.OutOfMemory, "MemoryError"},
		"numpy":      {"numpy._core._exceptions._ArrayMemoryError", "Unable to allocate 93 GiB", comfy.OutOfMemory, "93 GiB"},
		"torch, cpu": {"RuntimeError", "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried", comfy.OutOfMemory, "you tried"},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, nil)
			f.s.FailNode("SaveImage", c.exception, c.message)
			e := f.fails(f.run(f.prompt(solid(1)), nil), c.code)
			require.Equal(t, "2", e.NodeID)
			require.True(t, e.Ran)
			require.Contains(t, e.Message, "node 2 (SaveImage)")
			require.Contains(t, e.Message, c.has)
			require.NotContains(t, e.Message, "/srv")
			require.NotContains(t, e.Message, "File \"")
		})
	}
}

func TestInterruptedBySomebody(t *testing.T) {
	f := setup(t, nil)
	gate := f.s.Hold("EmptyImage")
	end := f.run(f.prompt(solid(1)), nil)
	gate.Reached()
	require.NoError(t, f.b.servers[0].post(t.Context(), "/interrupt", map[string]string{}))
	gate.Open()
	e := f.fails(end, comfy.Canceled)
	require.Contains(t, e.Message, "interrupted")
}

// TestNaN: ComfyUI writes bare NaN, which is no JSON.
func TestNaN(t *testing.T) {
	f := setup(t, nil)
	f.s.NaN(true)
	f.succeeds(f.run(f.prompt(solid(1)), nil))
	f.s.Refuse("SaveImage", "because")
	e := f.fails(f.run(f.prompt(solid(2)), nil), comfy.InvalidWorkflow)
	require.Equal(t, "because", e.NodeErrors["2"].Errors[0].Details)
}

func TestPostGoesWrong(t *testing.T) {
	big := `{"error":{"type":"x","message":"no /srv/comfy/ui.py","details":"Traceback (most recent call last):\n  File \"/srv/x.py\", line 3\n    raise\nKeyError: 1"},"node_errors":{}}`
	for name, c := range map[string]struct {
		spoil func(s *fakecomfy.Server)
		code  comfy.Code
		says  string
	}{
		"500":      {func(s *fakecomfy.Server) { s.AnswerPost(500, "Server got itself in trouble") }, comfy.BackendUnavailable, "500"},
		"502":      {func(s *fakecomfy.Server) { s.AnswerPost(502, "") }, comfy.BackendUnavailable, "502"},
		"403":      {func(s *fakecomfy.Server) { s.AnswerPost(403, "") }, comfy.BackendUnavailable, "Host"},
		"413":      {func(s *fakecomfy.Server) { s.AnswerPost(413, "") }, comfy.InvalidWorkflow, "--max-upload-size"},
		"400":      {func(s *fakecomfy.Server) { s.AnswerPost(400, big) }, comfy.InvalidWorkflow, "no ui.py: KeyError: 1"},
		"400 mute": {func(s *fakecomfy.Server) { s.AnswerPost(400, "nonsense") }, comfy.InvalidWorkflow, "no reason"},
		"dropped":  {func(s *fakecomfy.Server) { s.DropPost(false) }, comfy.BackendLost, "does not have it"},
		"refused":  {func(s *fakecomfy.Server) { s.Stop() }, comfy.BackendUnavailable, "ComfyUI"},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, func(_ *Options, tm *timing) { tm.probe = time.Hour })
			c.spoil(f.s)
			f.b.http.CloseIdleConnections() // writing into a dead one would leave it open whether the post has arrived
			p := f.prompt(solid(1))
			e := f.fails(f.run(p, nil), c.code)
			require.Contains(t, e.Error(), c.says)
			require.False(t, e.Ran)
			require.Zero(t, f.s.TotalRuns())
		})
	}
}

// TestPostCutOff: the connection breaks after ComfyUI has taken the prompt.
func TestPostCutOff(t *testing.T) {
	f := setup(t, nil)
	f.s.DropPost(true)
	p := f.prompt(solid(1))
	require.Len(t, f.succeeds(f.run(p, nil)).Files, 1)
	require.Equal(t, 1, f.s.Runs(p.ID))
}

// TestPostArrivesLate: one look that does not find it proves nothing.
func TestPostArrivesLate(t *testing.T) {
	f := setup(t, func(_ *Options, tm *timing) { tm.absent, tm.probe = time.Hour, time.Hour })
	late := f.s.LatePost()
	p := f.prompt(solid(1))
	end := f.run(p, nil)
	f.s.Await("the first look to end", func() bool { return f.s.Requests("GET /history/"+p.ID) == 2 })
	late.Open()
	require.Len(t, f.succeeds(end).Files, 1)
	require.Equal(t, 1, f.s.Runs(p.ID))
}

// TestPartlyRefused: ComfyUI answers 200 and drops the outputs that it does not like.
func TestPartlyRefused(t *testing.T) {
	f := setup(t, nil)
	f.s.Refuse("PreviewImage", "not today")
	gate := f.s.Hold("VAEDecodeTiled")
	first := f.run(f.prompt(tiled(1)), nil)
	gate.Reached()
	p := f.prompt(strings.Replace(solid(1), `"2":`, `"3":{"class_type":"PreviewImage","inputs":{"images":["1",0]}},"2":`, 1))
	e := f.fails(f.run(p, nil), comfy.InvalidWorkflow)
	require.Contains(t, e.Message, "not today")
	require.Contains(t, e.NodeErrors, "3")
	gate.Open()
	f.succeeds(first)
	require.Zero(t, f.s.Runs(p.ID))
}

func TestFilesGoWrong(t *testing.T) {
	f := setup(t, nil)
	out := f.succeeds(f.run(f.prompt(solid(1)), nil))
	file := out.Files[0]
	whole, err := f.read(out, file)
	require.NoError(t, err)

	f.s.CutViews(20)
	part, err := f.read(out, file)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Less(t, len(part), len(whole))
	errorOf(t, err, comfy.BackendUnavailable)
	f.s.CutViews(-1)

	f.s.PutFile("output", file.Filename, nil, time.Now())
	_, err = f.read(out, file)
	errorOf(t, err, comfy.OutputLost)
	f.s.RemoveFile("output", file.Filename)
	_, err = f.read(out, file)
	require.Equal(t, "2", errorOf(t, err, comfy.OutputLost).NodeID)
	file.Filename = "a..b.png"
	_, err = f.read(out, file)
	errorOf(t, err, comfy.OutputLost)

	f.s.Stop()
	_, err = f.read(out, out.Files[0])
	errorOf(t, err, comfy.BackendUnavailable)
}

func TestDownloadHangs(t *testing.T) {
	f := setup(t, func(_ *Options, tm *timing) { tm.idle, tm.probe = time.Second, time.Hour })
	out := f.succeeds(f.run(f.prompt(solid(1)), nil))
	f.s.HoldHTTP()
	_, err := f.read(out, out.Files[0])
	require.Contains(t, errorOf(t, err, comfy.BackendUnavailable).Error(), "no answer in time")
}

// TestLeavingWhilePosting: a prompt whose post was under way when the context ended is known afterwards.
func TestLeavingWhilePosting(t *testing.T) {
	f := setup(t, func(_ *Options, tm *timing) { tm.probe, tm.socketReady = time.Hour, 50*time.Millisecond })
	hang := f.s.HoldHTTP()
	ctx, leave := context.WithCancel(t.Context())
	p := f.prompt(solid(1))
	end := make(chan error, 1)
	go func() {
		_, err := f.b.Run(ctx, p, nil, f.rec)
		end <- err
	}()
	f.s.Await("the post", func() bool { return f.s.Requests("POST /prompt") == 1 })
	leave()
	select {
	case <-end:
		require.FailNow(t, "it left before the post had ended")
	case <-time.After(50 * time.Millisecond):
	}
	hang.Open()
	require.ErrorIs(t, <-end, context.Canceled)
	h := f.rec.Handles()[0]
	f.rec = newRecorder()
	require.Len(t, f.succeeds(f.run(p, &h)).Files, 1)
	require.Equal(t, 1, f.s.Runs(p.ID))
}

// TestLeavingBeforePosting: a prompt whose post was not begun when the context ended says so.
func TestLeavingBeforePosting(t *testing.T) {
	f := setup(t, func(_ *Options, tm *timing) { tm.probe, tm.socketReady = time.Hour, time.Hour })
	f.s.HoldHTTP()
	ctx, leave := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() {
		_, err := f.b.Run(ctx, f.prompt(solid(1)), nil, f.rec)
		end <- err
	}()
	f.s.Await("the handle", func() bool { return len(f.rec.Handles()) == 1 })
	leave()
	err := <-end
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, errorOf(t, err, comfy.Internal).Unsent)
	require.Empty(t, f.s.Posted())
}

// TestLeavingWhileLooking: a prompt that ComfyUI has is never called unsent, also where the context ends while ComfyUI is
// asked for it: its handle would be forgotten, and nobody could stop it.
func TestLeavingWhileLooking(t *testing.T) {
	for _, attached := range []bool{false, true} {
		f := setup(t, func(_ *Options, tm *timing) { tm.probe, tm.call = time.Hour, time.Minute })
		gate := f.s.Hold("EmptyImage")
		p := f.prompt(solid(1))
		ctx, leave := context.WithCancel(t.Context())
		end := make(chan error, 1)
		run := func(h *backend.Handle) {
			go func() {
				_, err := f.b.Run(ctx, p, h, f.rec)
				end <- err
			}()
		}
		run(nil)
		f.started()
		if attached {
			leave()
			require.ErrorIs(t, <-end, context.Canceled)
			ctx, leave = context.WithCancel(t.Context())
			h := f.rec.Handles()[0]
			run(&h)
		}
		http := f.s.HoldHTTP()
		http.Reached()
		leave()
		err := <-end
		require.ErrorIs(t, err, context.Canceled)
		require.False(t, errorOf(t, err, comfy.Internal).Unsent)
		http.Open()
		gate.Open()
	}
}

func TestRecorderFails(t *testing.T) {
	f := setup(t, nil)
	f.rec.HandleErr = errors.New("no heartbeat")
	p := f.prompt(solid(1))
	p.Inputs = []backend.Input{input("a.png", []byte("x"))}
	r := f.ends(f.run(p, nil))
	require.ErrorIs(t, r.err, f.rec.HandleErr)
	require.Empty(t, f.s.Posted())
	require.Empty(t, f.s.Files("input"))
}
