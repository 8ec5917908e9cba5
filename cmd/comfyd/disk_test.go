package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// onSmallDisks runs the test again in a mount namespace of its own, which needs no root and leaves nothing behind, and
// returns true there.
func onSmallDisks(t *testing.T) bool {
	t.Helper()
	const inside = "COMFYD_TEST_SMALL_DISKS"
	if os.Getenv(inside) != "" {
		return true
	}
	if runtime.GOOS != "linux" {
		t.Skip("small file systems are made by Linux's namespaces")
	}
	if out, err := exec.Command("unshare", "-rm", "mount", "-t", "tmpfs", "none", t.TempDir()).CombinedOutput(); err != nil {
		t.Skipf("no small file system can be mounted here: %v %s", err, out)
	}
	cmd := exec.Command("unshare", "-rm", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	require.NoError(t, err)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "it has run")
	return false
}

// smallDisk is a file system of its own.
type smallDisk struct {
	t    *testing.T
	path string
}

func mount(t *testing.T, size string) *smallDisk {
	t.Helper()
	d := &smallDisk{t: t, path: t.TempDir()}
	require.NoError(t, syscall.Mount("none", d.path, "tmpfs", 0, "size="+size))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(d.path, syscall.MNT_DETACH)) })
	return d
}

func (d *smallDisk) filler() string { return filepath.Join(d.path, "filler") }

// fill takes the last byte, however much is written beside it.
func (d *smallDisk) fill() {
	d.t.Helper()
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(d.t, err)
	defer f.Close()
	block := bytes.Repeat([]byte{1}, 64<<10)
	for len(block) > 0 {
		if _, err = f.Write(block); err != nil {
			require.ErrorIs(d.t, err, syscall.ENOSPC)
			block = block[:len(block)/2]
		}
	}
	require.ErrorIs(d.t, err, syscall.ENOSPC, "the fault has fired")
}

func (d *smallDisk) free() { require.NoError(d.t, os.Remove(d.filler())) }

// whole checks that each blob is what its name says.
func (d *smallDisk) whole() (blobs int) {
	d.t.Helper()
	require.NoError(d.t, filepath.WalkDir(d.path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.Contains(path, "/.tmp/") || len(e.Name()) != 2*sha256.Size {
			return err
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		sum := sha256.Sum256(raw)
		require.Equal(d.t, e.Name(), hex.EncodeToString(sum[:]), path)
		blobs++
		return err
	}))
	return blobs
}

// fullFor is how long the database cannot write; COMFYD_TEST_DISK_FULL_FOR=6m tries whether the server gives up some day.
func fullFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("COMFYD_TEST_DISK_FULL_FOR")
	if text == "" {
		return 3 * time.Second
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d
}

// TestDiskFull fills the disks under a running comfyd (F13): first that of the store, then that of Temporal's database.
func TestDiskFull(t *testing.T) {
	if !onSmallDisks(t) {
		return
	}
	data, blobs := mount(t, "64m"), mount(t, "64m")
	s := fakecomfy.New(t)
	gate := s.Hold("ImageAddNoise")
	p := prepare(t, "COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL, "COMFYD_MIN_FREE_DISK=8MiB",
		"COMFYD_DATA_DIR="+data.path, "COMFYD_STORE_URL=file://"+blobs.path)
	p.start()
	pid := p.cmd.Process.Pid
	var ids []string
	for i := range 6 {
		ids = append(ids, p.submit(noise(i)))
	}
	gate.Reached()

	refused := func(what string) {
		t.Helper()
		var code int
		var body map[string]any
		require.Eventually(t, func() bool { // what was free is known for a second
			var err error
			code, body, err = p.request("POST", "/submit_workflow", map[string]any{"workflow": noise(99)})
			require.NoError(t, err)
			return body["code"] == "storage"
		}, 30*time.Second, 50*time.Millisecond)
		require.Equal(t, 503, code, "%v", body)
		require.Contains(t, body["error"], what)
		code, body, err := p.request("POST", "/inputs", map[string]any{"name": "a.txt", "image": "aGVsbG8="})
		require.NoError(t, err)
		require.Equal(t, 503, code, "%v", body)
		code, body, err = p.get("/readyz")
		require.NoError(t, err)
		require.Equal(t, 503, code, "%v", body)
		require.Equal(t, false, body["disk"].(map[string]any)["ok"], "%v", body)
	}

	blobs.fill()
	refused("COMFYD_STORE_URL")
	gate.Open()
	require.Eventually(t, func() bool { return strings.Contains(p.out.String(), "no space left on device") }, 30*time.Second, 50*time.Millisecond,
		"comfyd itself meets the full disk: %s", p.out)
	require.Eventually(t, func() bool {
		code, body, err := p.get("/status/" + ids[0])
		require.NoError(t, err)
		require.Equal(t, 202, code, "%v", body)
		return body["phase"] == "collecting"
	}, 30*time.Second, 50*time.Millisecond, "its outputs wait for room")
	blobs.whole()
	blobs.free()
	for _, id := range ids {
		status := p.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
	}
	require.NotZero(t, blobs.whole())

	gate = s.Hold("ImageAddNoise")
	ids = nil
	for i := range 6 {
		ids = append(ids, p.submit(noise(10+i)))
	}
	gate.Reached()
	data.fill()
	refused("COMFYD_DATA_DIR")
	gate.Open()
	require.Eventually(t, func() bool { return strings.Contains(p.out.String(), "disk is full") }, time.Minute, 50*time.Millisecond,
		"SQLite meets the full disk: %s", p.out)
	time.Sleep(fullFor(t)) // the fault lasts; nothing is waited for
	data.free()
	freed := time.Now()
	for _, id := range ids {
		status := p.finish(id)
		require.Equal(t, "COMPLETED", status["status"], "%v", status)
	}
	t.Logf("all jobs have ended %s after there was room again", time.Since(freed))
	require.Equal(t, "COMPLETED", p.finish(p.submit(noise(50)))["status"])
	require.Equal(t, pid, p.cmd.Process.Pid)
	blobs.whole()
	p.signal(syscall.SIGTERM)
	p.start()
	for _, id := range ids {
		require.Equal(t, "COMPLETED", p.finish(id)["status"], "the database is whole")
	}
	p.signal(syscall.SIGTERM)
}
