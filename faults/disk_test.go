package faults

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
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
	cmd := exec.Command("unshare", "-rm", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "20m")
	cmd.Env = append(os.Environ(), inside+"=1", builtDir+"="+filepath.Dir(comfydBin))
	out, err := cmd.CombinedOutput()
	t.Logf("it said:\n%s", strings.ReplaceAll("\n"+string(out), "\n", "\n| ")) // not to be taken for this run's own events
	require.NoError(t, err)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "it has run")
	return false
}

// smallDisk is a file system of its own.
type smallDisk struct {
	t    *testing.T
	path string
}

func mount(t *testing.T, path, size string) *smallDisk {
	t.Helper()
	d := &smallDisk{t: t, path: path}
	require.NoError(t, os.Mkdir(path, 0o700))
	require.NoError(t, syscall.Mount("none", path, "tmpfs", 0, "size="+size))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(path, syscall.MNT_DETACH)) })
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

// TestF13DiskFull fills the disks under a running comfyd: first that of the store, then that of Temporal's database.
func TestF13DiskFull(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute: the long form has it")
	}
	if !onSmallDisks(t) {
		return
	}
	w, s := newWorld(t), fakecomfy.New(t)
	w.gpu = doubles{s}
	w.within += fullFor(t)
	data, blobs := mount(t, w.data("serve"), "64m"), mount(t, w.data("blobs"), "64m")
	gate := s.Hold("ImageAddNoise")
	p := w.serve("COMFYD_BACKEND=url", "COMFYUI_URLS="+s.URL, "COMFYD_MIN_FREE_DISK=8MiB", "COMFYD_STORE_URL=file://"+blobs.path)
	pid := p.cmd.Process.Pid
	ids := w.load(6)
	gate.Reached()

	refused := func(what string) {
		t.Helper()
		var e *Event
		require.Eventually(t, func() bool { // what was free is known for a second
			e = w.send(job{graph: noise(99)})
			return e.Body["code"] == "storage"
		}, 2*time.Minute, 50*time.Millisecond)
		require.Equal(t, http.StatusServiceUnavailable, e.Code, "%v", e.Body)
		require.Contains(t, e.Body["error"], what)
		e = w.alice.Do(t.Context(), "POST", "/inputs", "", map[string]any{"name": "a.txt", "image": "aGVsbG8="}, nil)
		require.Equal(t, http.StatusServiceUnavailable, e.Code, "%v", e.Body)
		e = w.alice.Do(t.Context(), "GET", "/readyz", "", nil, nil)
		require.Equal(t, http.StatusServiceUnavailable, e.Code, "%v", e.Body)
		require.Equal(t, false, e.Body["disk"].(map[string]any)["ok"], "%v", e.Body)
	}
	meets := func(words string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(p.said(), words) }, 5*time.Minute, 50*time.Millisecond, "comfyd says %q", words)
		w.fired(true, "comfyd met it: "+words)
	}

	blobs.fill()
	refused("COMFYD_STORE_URL")
	gate.Open()
	meets("no space left on device")
	w.phase(ids[0], func(e *Event) bool { return e.Body["phase"] == "collecting" }, "its outputs wait for room")
	blobs.whole()
	freed := time.Now()
	blobs.free()
	for _, id := range ids {
		require.Equal(t, "COMPLETED", w.finish(id)["status"])
	}
	w.recovered("the disk of the store was full, from the room on", freed, time.Since(freed))
	require.NotZero(t, blobs.whole())

	gate = s.Hold("ImageAddNoise")
	ids = w.load(6)
	gate.Reached()
	data.fill()
	refused("COMFYD_DATA_DIR")
	gate.Open()
	meets("disk is full")
	<-time.After(fullFor(t)) // the fault lasts; nothing is waited for
	data.free()
	freed = time.Now()
	for _, id := range ids {
		require.Equal(t, "COMPLETED", w.finish(id)["status"])
	}
	w.recovered("the disk of Temporal's database was full, from the room on", freed, time.Since(freed))
	require.Equal(t, "COMPLETED", w.finish(w.submit(noise(50)))["status"])
	require.False(t, dead(pid), "it was the same process all the time")
	blobs.whole()
	p.signal(syscall.SIGTERM)
	p.start() // the database is whole
	w.check()
}
