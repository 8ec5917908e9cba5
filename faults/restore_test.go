package faults

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// TestRestoreRefuses everything but a whole backup and an empty data folder, and changes nothing then.
func TestRestoreRefuses(t *testing.T) {
	w, s := newWorld(t), fakecomfy.New(t)
	p := w.keysInFolder(s.URL)
	require.Equal(t, "COMPLETED", w.finish(w.submit(noise(1)))["status"])
	whole := p.backup()
	code, out := p.command("restore", whole)
	require.Equal(t, 1, code, "comfyd runs there")
	require.Contains(t, out, "in use by another comfyd")
	inStore := filepath.Join(p.data(), "blobs", "backup")
	code, out = p.command("backup", inStore)
	require.Equal(t, 2, code)
	require.Contains(t, out, "in the data folder")
	linked := filepath.Join(t.TempDir(), "linked")
	code, out = p.command("backup", "--link", linked)
	require.Zero(t, code, out)
	p.signal(syscall.SIGTERM)
	before := files(t, p.data())
	code, out = p.command("restore", whole)
	require.Equal(t, 2, code)
	require.Contains(t, out, "temporal.db, ")
	require.Equal(t, before, files(t, p.data()))
	stopped := p.backup()
	require.Equal(t, before, files(t, p.data()), "a backup changes nothing")

	q := w.moved(p)
	code, out = q.command("backup", filepath.Join(t.TempDir(), "backup"))
	require.Equal(t, 1, code)
	require.Contains(t, out, "there is no database")
	for name, tt := range map[string]struct {
		damage func(folder string) error
		code   int
		says   string
	}{
		"no manifest":     {func(f string) error { return os.Remove(filepath.Join(f, "manifest.json")) }, 2, "not a complete one"},
		"half a manifest": {func(f string) error { return os.Truncate(filepath.Join(f, "manifest.json"), 100) }, 2, "cannot be read"},
		"later format": {func(f string) error {
			return replace(filepath.Join(f, "manifest.json"), `"format": 1`, `"format": 2`)
		}, 2, "format 2"},
		"a file outside": {func(f string) error {
			return replace(filepath.Join(f, "manifest.json"), `"api-key"`, `"../api-key"`)
		}, 2, "no backup has"},
		"another database": {func(f string) error { return os.Truncate(filepath.Join(f, "temporal.db"), 4096) }, 2, "not the file that was backed up"},
		"a file less":      {func(f string) error { return os.Remove(blobIn(t, f)) }, 2, "and should have"},
		"a wrong file":     {func(f string) error { return flip(blobIn(t, f)) }, 2, "not those of its name"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "copy")
			require.NoError(t, os.CopyFS(folder, os.DirFS(whole)))
			require.NoError(t, tt.damage(folder))
			q := w.moved(p)
			code, out := q.command("restore", folder)
			require.Equal(t, tt.code, code)
			require.Contains(t, out, tt.says)
			_, err := os.Stat(q.data())
			if err == nil {
				require.Empty(t, files(t, q.data()))
			}
		})
	}
	for _, folder := range []string{linked, stopped} {
		q := w.moved(p)
		code, out = q.command("restore", folder)
		require.Zero(t, code, out)
		code, out = q.command("restore", folder)
		require.Equal(t, 2, code, "a second time: %s", out)
	}
	bucket := w.moved(p, "COMFYD_STORE_URL=s3://bucket?region=us-east-1")
	code, out = bucket.command("restore", whole)
	require.Equal(t, 2, code)
	require.Contains(t, out, "COMFYD_STORE_URL names a bucket")
	cluster := w.moved(p, "TEMPORAL_ADDRESS=127.0.0.1:1", "COMFYD_STORE_URL=s3://bucket?region=us-east-1")
	code, out = cluster.command("backup", filepath.Join(t.TempDir(), "backup"))
	require.Equal(t, 2, code)
	require.Contains(t, out, "TEMPORAL_ADDRESS is set")
	w.fired(true, "backups and restores that must be refused")
	p.start()
	w.check()
}

// TestBackupBesideABucket holds no files, and says so.
func TestBackupBesideABucket(t *testing.T) {
	w, s := newWorld(t), fakecomfy.New(t)
	p := w.keysInFolder(s.URL)
	p.signal(syscall.SIGTERM)
	plain := p.vars
	p.vars = append(slices.Clip(plain), "COMFYD_STORE_URL=s3://bucket?region=us-east-1") // nobody asks it anything
	folder := filepath.Join(t.TempDir(), "backup")
	code, out := p.command("backup", folder)
	require.Zero(t, code, out)
	require.Contains(t, out, "by its own means")
	require.NoDirExists(t, filepath.Join(folder, "blobs"))
	q := w.moved(p)
	code, out = q.command("restore", folder)
	require.Zero(t, code, out)
	code, out = w.moved(p, "COMFYD_STORE_URL=").command("restore", folder)
	require.Equal(t, 2, code)
	require.Contains(t, out, "set COMFYD_STORE_URL to it")
	w.fired(true, "a backup without the store's files")
	p.vars = plain
	p.start()
	w.check()
}

// blobIn is a file of a backup's store whose name is its SHA-256.
func blobIn(t *testing.T, folder string) (path string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(filepath.Join(folder, "blobs", "outputs"), func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			path = p
		}
		return err
	}))
	require.NotEmpty(t, path)
	return path
}

func flip(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	raw[len(raw)/2] ^= 1
	return os.WriteFile(path, raw, 0o600)
}

func replace(path, from, to string) error {
	raw, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(raw, []byte(from)) {
		return errors.Join(err, errors.New("nothing to replace"))
	}
	return os.WriteFile(path, bytes.Replace(raw, []byte(from), []byte(to), 1), 0o600)
}
