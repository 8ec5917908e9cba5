package localcomfy

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/backend/backendtest"
	"github.com/comfyd/comfyd/comfy"
)

// newReal is a world with a real ComfyUI.
func newReal(t *testing.T) *world {
	dir := os.Getenv("COMFYD_TEST_COMFYUI_DIR")
	if dir == "" {
		t.Skip("COMFYD_TEST_COMFYUI_DIR is not set: it names the folder of a real ComfyUI, which make comfyui prepares")
	}
	w := newWorld(t)
	w.o.Dir, w.o.Python, w.o.StartTimeout = dir, "", 5*time.Minute
	return w
}

const (
	image = `{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":255}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"real/img"}}}`
	// poison ends ComfyUI's execution thread: it goes on accepting and answering, and runs nothing any more.
	poison = `{"prompt":{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":255}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"real/img"}},"3":{"class_type":"ImageInvert"}}}`
)

// run carries a job through and removes what it left.
func (w *world) run(t *testing.T, b *Backend) {
	out, err := b.Run(t.Context(), backendtest.Prompt(t, image), nil, backendtest.NewRecorder())
	require.NoError(t, err)
	require.Len(t, out.Files, 1)
	saved := w.file("output", out.Files[0].Subfolder, out.Files[0].Filename)
	require.FileExists(t, saved)
	require.NoError(t, b.Release(t.Context(), out.Handle, out.Files))
	require.NoFileExists(t, saved)
}

// again waits until another process than pid is ready, and tells how long that took.
func (w *world) again(t *testing.T, b *Backend, pid int, since time.Time) time.Duration {
	require.Eventually(t, func() bool {
		s := w.state(t)
		return s.PID != 0 && s.PID != pid && b.Servers()[0].Healthy
	}, 3*time.Minute, 20*time.Millisecond, "not ready again")
	return time.Since(since).Round(10 * time.Millisecond)
}

func TestRealComfyUI(t *testing.T) {
	w := newReal(t)
	began := time.Now()
	b, err := Start(t.Context(), w.o)
	require.NoError(t, err)
	require.Less(t, time.Since(began), 20*time.Second, "Start waits")
	t.Logf("from nothing to ready: %s", w.again(t, b, 0, began))
	closed := false
	defer func() {
		if !closed {
			b.Close()
		}
	}()
	w.run(t, b)

	t.Run("Suite", func(t *testing.T) {
		backendtest.Run(t, func(*testing.T) backend.Backend { return b })
	})

	t.Run("Killed", func(t *testing.T) {
		pid := w.pid(t)
		at := time.Now()
		kill(t, pid)
		t.Logf("from kill -9 to ready: %s", w.again(t, b, pid, at))
		w.run(t, b)
	})

	t.Run("Poisoned", func(t *testing.T) {
		res, err := http.Post(b.server+"/prompt", "application/json", bytes.NewReader([]byte(poison)))
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, http.StatusOK, res.StatusCode, "this ComfyUI is not poisoned by that")
		pid := w.pid(t)
		at := time.Now()
		p := backendtest.Prompt(t, image)
		p.StallTimeout = 5 * time.Second
		_, err = b.Run(t.Context(), p, nil, backendtest.NewRecorder())
		var e *backend.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, comfy.Timeout, e.Code, "%v", err)
		t.Logf("from poison to ready, with a limit of 5 s: %s", w.again(t, b, pid, at))
		require.False(t, lives(pid))
		w.run(t, b)
	})

	pid := w.pid(t)
	at := time.Now()
	closed = true
	require.NoError(t, b.Close())
	t.Logf("Close: %s", time.Since(at).Round(time.Millisecond))
	require.False(t, lives(pid))
}

func TestRealComfyUIIsAdopted(t *testing.T) {
	w := newReal(t)
	w.killedOwner(t)
	pid := w.pid(t)
	at := time.Now()
	b, err := Start(t.Context(), w.o)
	require.NoError(t, err)
	w.ready(t, b)
	t.Logf("from Start to an adopted ComfyUI: %s", time.Since(at).Round(time.Millisecond))
	require.Equal(t, pid, w.pid(t))
	w.run(t, b)
	require.NoError(t, b.Close())
	require.False(t, lives(pid))
}

// A ComfyUI that cannot even import its packages says so in its last lines.
func TestRealComfyUIWithoutItsPackages(t *testing.T) {
	w := newReal(t)
	var err error
	w.o.Python, err = exec.LookPath("python3")
	require.NoError(t, err)
	b := w.start(t)
	problem := w.problem(t, b, "ComfyUI ended while it was starting")
	require.Contains(t, problem, "ModuleNotFoundError")
}
