package main

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
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "-ldflags", "-X main.version="+version, ".")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.CommandContext(ctx, path, "version").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), version)
	return path
}

// TestUpgradeInMidJob: a job that runs while comfyd is replaced by another version ends well, and the GPU runs once.
func TestUpgradeInMidJob(t *testing.T) {
	older, newer := build(t, "v0.0.1"), build(t, "v0.0.2")
	for name, s := range map[string]syscall.Signal{"kill -9": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			comfy := fakecomfy.New(t)
			gate := comfy.Hold("ImageAddNoise")
			p := prepare(t, "COMFYD_BACKEND=url", "COMFYUI_URLS="+comfy.URL)
			p.binary = older
			p.start()
			running := p.submit(noise(1))
			gate.Reached()
			waiting := []string{p.submit(noise(2)), p.submit(noise(3))}
			p.signal(s)
			p.binary = newer
			began := time.Now()
			p.start()
			gate.Open()
			for _, id := range append(waiting, running) {
				status := p.finish(id)
				require.Equal(t, "COMPLETED", status["status"], "%v", status)
				require.EqualValues(t, 1, status["attempts"])
			}
			require.Equal(t, 3, comfy.TotalRuns(), "the GPU runs once for each")
			t.Logf("all ended %s after the start of the newer one", time.Since(began))
			p.signal(syscall.SIGTERM)
		})
	}
}
