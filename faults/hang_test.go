package faults

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestF08SilentSocket: ComfyUI's event socket says nothing, or cannot be opened; HTTP works, and so does the job.
func TestF08SilentSocket(t *testing.T) {
	beside(t)
	for name, spoil := range map[string]func(*fakecomfy.Server){
		"silent":  func(s *fakecomfy.Server) { s.Mute(true) },
		"refused": func(s *fakecomfy.Server) { s.NoSockets(true) },
		"breaks":  func(*fakecomfy.Server) {},
	} {
		t.Run(name, func(t *testing.T) {
			w, s := newWorld(t), fakecomfy.New(t)
			w.gpu = doubles{s}
			gate := s.Hold("EmptyImage")
			spoil(s)
			w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL)
			id := w.submit(noise(1))
			gate.Reached()
			if name == "breaks" {
				require.Eventually(t, func() bool { return s.Sockets() > 0 }, 5*time.Minute, 10*time.Millisecond)
				s.CloseSockets()
			}
			w.fired(name != "refused" || s.Sockets() == 0, "the socket is "+name)
			gate.Open()
			opened := time.Now()
			w.completes(id, 1)
			t.Logf("completed %.1f s after its last node, without a word on the socket", time.Since(opened).Seconds())
			require.Equal(t, 1, s.TotalRuns())
			w.check()
		})
	}
}

// TestF09Hangs: ComfyUI shows no sign of life, and HTTP works. The prompt is interrupted, the server put aside; the job
// goes to another one, or waits until this one has recovered.
func TestF09Hangs(t *testing.T) {
	beside(t)
	for name, alone := range map[string]bool{"alone": true, "another server": false} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && !alone {
				t.Skip("the long form has it")
			}
			w, s, other := newWorld(t), fakecomfy.New(t), fakecomfy.New(t)
			w.gpu = doubles{s, other}
			gate := s.Hold("EmptyImage")
			urls := s.URL
			if !alone {
				other.Kill() // so that the first one gets the job
				urls += "," + other.URL
			}
			w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+urls, "COMFYD_STALL_TIMEOUT=10s")
			id := w.submit(noise(1))
			gate.Reached()
			hung := time.Now()
			if !alone {
				other.Start()
			}
			require.Eventually(t, func() bool { return len(s.Interrupts()) > 0 }, 5*time.Minute, 50*time.Millisecond, "the prompt is interrupted")
			w.fired(true, "no sign of life for COMFYD_STALL_TIMEOUT")
			if alone {
				require.Eventually(t, func() bool {
					return w.alice.Do(t.Context(), "GET", "/readyz", "", nil, nil).Code == http.StatusServiceUnavailable
				},
					5*time.Minute, 100*time.Millisecond, "the server is put aside")
				gate.Open()
				hung = time.Now()
			}
			on := w.attempted(id, 2, hung)
			w.completes(id, 2)
			w.recovered("ComfyUI hangs ("+name+")", hung, on)
			gate.Open()
			w.completes(w.submit(noise(2)), 1)
			w.check()
		})
	}
}

// TestF09HungProcess stops the real ComfyUI with SIGSTOP: nothing answers any more. comfyd recycles it.
func TestF09HungProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes more than a minute: the long form has it")
	}
	w := newWorld(t)
	w.serveLocal("COMFYD_STALL_TIMEOUT=20s")
	id := w.submit(slow(t))
	w.running(id)
	pid := w.comfyUI()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	hung := time.Now()
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	on := w.attempted(id, 2, hung)
	w.fired(w.comfyUI() != pid && dead(pid), "ComfyUI hung, HTTP dead; its process was replaced")
	w.completes(id, 2)
	w.recovered("ComfyUI hung, HTTP dead, recycled (stall timeout 20 s)", hung, on)
	w.check()
}

// TestF10PartitionFromComfyUI breaks the network between comfyd and the real ComfyUI: shortly, then for so long that the
// prompt is given up. After the heal nothing is published twice.
func TestF10PartitionFromComfyUI(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute: the long form has it")
	}
	for _, c := range []struct {
		name  string
		long  time.Duration
		stall bool
		most  float64
	}{
		{"cut for 3 s", 3 * time.Second, false, 1},
		{"silent for 20 s", 20 * time.Second, true, 1},
		{"cut for 15 s", 15 * time.Second, false, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, d := newWorld(t), newDoor(t)
			w.gpu = d
			net := newLink(t, d.Listener.Addr().String())
			w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS=http://"+net.addr)
			id := w.submit(slowOf(t, 5120))
			w.running(id)
			if c.stall {
				net.stall()
			} else {
				net.cut()
			}
			<-time.After(c.long)
			w.fired(net.hit() && w.status(id).State() == "RUNNING", "comfyd was cut off from ComfyUI, "+c.name)
			healed := time.Now()
			net.heal()
			status := w.finish(id)
			require.Equal(t, "COMPLETED", status["status"], "%v", status)
			require.LessOrEqual(t, status["attempts"], c.most)
			w.recovered(fmt.Sprintf("cut off from ComfyUI (%s, %v attempts), from the heal on", c.name, status["attempts"]), healed, time.Since(healed))
			w.completes(w.submit(noise(int(time.Now().UnixNano()%1e9))), 1)
			w.check()
		})
	}
}
