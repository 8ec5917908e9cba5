package faults

import (
	"context"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// build makes comfyd as a release does, with a version of its own.
func build(t *testing.T, version string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "comfyd-"+version)
	ctx, done := context.WithTimeout(t.Context(), 10*time.Minute)
	defer done()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "-ldflags", "-X main.version="+version, "../cmd/comfyd")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.CommandContext(ctx, path, "version").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), version)
	return path
}

// TestUpgradeInMidJob: a job that runs while comfyd is replaced by another version ends well, and the GPU runs once.
func TestUpgradeInMidJob(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds another comfyd: the long form has it")
	}
	older := build(t, "v0.0.1")
	for name, s := range map[string]syscall.Signal{"kill -9": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			w, comfy := newWorld(t), fakecomfy.New(t)
			w.gpu = doubles{comfy}
			gate := comfy.Hold("ImageAddNoise")
			newer := comfydBin
			p := w.serveFrom(older, "COMFYD_BACKEND=url", "COMFYUI_URLS="+comfy.URL)
			running := w.submit(noise(1))
			gate.Reached()
			waiting := []string{w.submit(noise(2)), w.submit(noise(3))}
			p.signal(s)
			w.fired(w.gone(), name+" of the older version in mid-job")
			p.path = newer
			began := time.Now()
			p.start()
			gate.Open()
			for _, id := range append(waiting, running) {
				w.completes(id, 1)
			}
			require.Equal(t, 3, comfy.TotalRuns(), "the GPU runs once for each")
			t.Logf("all ended %s after the start of the newer one", time.Since(began))
			w.check()
		})
	}
}
