package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// kibPerJob is what a tiny job may take in the database, so that a growth of the history is seen.
const kibPerJob = 40

// TestDiskOfAJob measures what a tiny job leaves in the database and in the store, and how long their backup takes.
func TestDiskOfAJob(t *testing.T) {
	if testing.Short() {
		t.Skip("a measurement: the long form has it")
	}
	n := min(jobsAtOnce(t), 500)
	w := newWorld(t)
	w.every = 20
	p := w.keysInFolder(fakecomfy.New(t).URL)
	data := p.data()
	for i := range 5 {
		require.Equal(t, "COMPLETED", w.finish(w.submit(noise(10_000 + i)))["status"])
	}
	p.signal(syscall.SIGTERM) // brings the log into the database
	database, files, bytes := sizes(t, data)
	p.start()
	idle := p.resident()
	ids, _ := w.submitAll(n)
	for _, id := range ids {
		require.Equal(t, "COMPLETED", w.finish(id)["status"])
	}
	wal, err := os.Stat(filepath.Join(data, "temporal.db-wal"))
	require.NoError(t, err)
	began := time.Now()
	p.backup()
	took := time.Since(began)
	p.signal(syscall.SIGTERM)
	databaseAfter, filesAfter, bytesAfter := sizes(t, data)
	perJob := (databaseAfter - database) / int64(n)
	t.Logf("%d jobs: database %s, %d KiB more for each; log %s while running; store %.1f files and %d KiB more for each; backup in %s; memory at the start %s",
		n, mib(databaseAfter), perJob>>10, mib(wal.Size()), float64(filesAfter-files)/float64(n), (bytesAfter-bytes)/int64(n)>>10, took, mib(idle))
	require.Less(t, perJob, int64(kibPerJob<<10))
	require.Greater(t, filesAfter-files, int64(n)-1, "each job's output is in the store")
	w.fired(true, fmt.Sprintf("%d jobs were measured", n))
	p.start()
	w.check()
}

// sizes are the bytes of the database, and the number and bytes of the files in the store.
func sizes(t *testing.T, data string) (database, files, bytes int64) {
	t.Helper()
	info, err := os.Stat(filepath.Join(data, "temporal.db"))
	require.NoError(t, err)
	require.NoError(t, filepath.WalkDir(filepath.Join(data, "blobs"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.Contains(path, "/.tmp/") {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		files++
		bytes += info.Size()
		return err
	}))
	return info.Size(), files, bytes
}
