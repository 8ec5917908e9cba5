package store_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestPutAndRead(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		for name, text := range map[string]string{
			"empty":                            "",
			"outputs/job/text":                 "hello",
			"a b/c+d%20?&#=ä/日本語.png":          "odd key",
			strings.Repeat("x", 200) + "/y":    "long part",
			strings.Repeat("long/", 100) + "z": "deep key",
			"big":                              strings.Repeat("0123456789abcdef", 1<<17), // 2 MiB: spooled in a file
			"multipart":                        strings.Repeat("0123456789abcdef", 20<<16),
			"outputs/job/" + digest("by hash"): "by hash",
		} {
			b := put(t, w.Store, name, text)
			require.Equal(t, name, b.Key)
			require.EqualValues(t, len(text), b.Size)
			require.Equal(t, digest(text), b.SHA256)

			got, err := read(t.Context(), w.Store, name, 0, -1)
			require.NoError(t, err, name)
			require.True(t, got == text, "%s: %d bytes came back", name, len(got))

			b, err = w.Stat(t.Context(), name)
			require.NoError(t, err)
			require.EqualValues(t, len(text), b.Size)
			require.WithinDuration(t, time.Now(), b.Modified, time.Minute)
		}
		put(t, w.Store, "empty", "not any more")
		got, err := read(t.Context(), w.Store, "empty", 0, -1)
		require.NoError(t, err)
		require.Equal(t, "not any more", got)
	})
}

func TestPutHashed(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		key := "inputs/tenant/" + digest("bytes")
		for range 2 {
			b, err := w.PutHashed(t.Context(), "inputs/tenant/", strings.NewReader("bytes"))
			require.NoError(t, err)
			require.Equal(t, key, b.Key)
			require.Equal(t, digest("bytes"), b.SHA256)
			require.EqualValues(t, 5, b.Size)
		}
		require.Equal(t, []string{key}, list(t, w.Store, ""))
		b, err := w.Stat(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, digest("bytes"), b.SHA256)

		// A folder does not write again what is there ...
		file := filepath.Join(w.dir, key)
		before, err := os.Stat(file)
		require.NoError(t, err)
		_, err = w.PutHashed(t.Context(), "inputs/tenant/", strings.NewReader("bytes"))
		require.NoError(t, err)
		after, err := os.Stat(file)
		require.NoError(t, err)
		if _, bucket := strings.CutPrefix(w.url, "s3:"); !bucket {
			require.True(t, os.SameFile(before, after))
		}

		// ... but does not look forgotten ...
		for name, use := range map[string]func() error{
			"put again": func() error {
				_, err := w.PutHashed(t.Context(), "inputs/tenant/", strings.NewReader("bytes"))
				return err
			},
			"touched": func() error { return w.Touch(t.Context(), key) },
		} {
			old := time.Now().Add(-2 * time.Hour)
			require.NoError(t, os.Chtimes(file, old, old))
			require.NoError(t, use(), name)
			b, err = w.Stat(t.Context(), key)
			require.NoError(t, err)
			require.WithinDuration(t, time.Now(), b.Modified, time.Minute, name)
			got, err := read(t.Context(), w.Store, key, 0, -1)
			require.NoError(t, err)
			require.Equal(t, "bytes", got, name)
		}
		require.ErrorIs(t, w.Touch(t.Context(), "inputs/tenant/"+digest("gone")), fs.ErrNotExist)
		require.ErrorIs(t, w.Touch(t.Context(), "../x"), fs.ErrInvalid)

		// ... and is replaced where something has cut it.
		require.NoError(t, os.WriteFile(file, []byte("by"), 0o600))
		_, err = w.PutHashed(t.Context(), "inputs/tenant/", strings.NewReader("bytes"))
		require.NoError(t, err)
		got, err := read(t.Context(), w.Store, key, 0, -1)
		require.NoError(t, err)
		require.Equal(t, "bytes", got)
	})
}

func TestPutRefusesBytesThatTheKeyDoesNotPromise(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		_, err := w.Put(t.Context(), "outputs/job/"+digest("this"), strings.NewReader("that"))
		requireError(t, err, false)
		require.Empty(t, list(t, w.Store, ""))
	})
}

func TestRanges(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		put(t, w.Store, "ten", "0123456789")
		put(t, w.Store, "none", "")
		for _, c := range []struct {
			key            string
			offset, length int64
			want           string
		}{
			{"ten", 0, -1, "0123456789"}, {"ten", 0, 10, "0123456789"}, {"ten", 0, 0, ""}, {"ten", 3, 4, "3456"},
			{"ten", 7, -1, "789"}, {"ten", 7, 99, "789"}, {"ten", 9, 1, "9"}, {"ten", 10, -1, ""}, {"ten", 10, 1, ""},
			{"ten", 10, 0, ""}, {"ten", 99, -1, ""}, {"ten", 99, 99, ""},
			{"none", 0, -1, ""}, {"none", 0, 5, ""}, {"none", 5, -1, ""},
		} {
			got, err := read(t.Context(), w.Store, c.key, c.offset, c.length)
			require.NoError(t, err, "%+v", c)
			require.Equal(t, c.want, got, "%+v", c)
		}
		for _, c := range [][2]int64{{-1, -1}, {0, -2}} {
			_, err := w.Open(t.Context(), "ten", c[0], c[1])
			requireError(t, err, false)
			require.ErrorIs(t, err, fs.ErrInvalid)
		}
	})
}

func TestMissingKey(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		put(t, w.Store, "a/b", "x")
		for _, key := range []string{"nope", "a", "a/nope", "a/b/c", "nope/nope/nope"} {
			_, err := w.Stat(t.Context(), key)
			require.ErrorIs(t, err, fs.ErrNotExist, key)
			requireError(t, err, false)
			for _, offset := range []int64{0, 5} {
				_, err = w.Open(t.Context(), key, offset, -1)
				require.ErrorIs(t, err, fs.ErrNotExist, key)
				requireError(t, err, false)
			}
			require.NoError(t, w.Delete(t.Context(), key))
		}
		require.Equal(t, []string{"a/b"}, list(t, w.Store, ""))
	})
}

func TestKeys(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		before := files(t, filepath.Dir(w.dir))
		for _, key := range []string{
			"", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a/./b", ".", ".tmp/x", "a/.hidden", "a//b", "a/",
			"a\\b", "..\\x", "a\x00b", "a\nb", "a\x7fb", "\xff\xfe", strings.Repeat("x", 201), "a/" + strings.Repeat("ä", 101),
			strings.Repeat("a/", 512) + "b",
		} {
			_, err := w.Put(t.Context(), key, strings.NewReader("x"))
			require.ErrorIs(t, err, fs.ErrInvalid, "%q", key)
			requireError(t, err, false)
			_, err = w.PutHashed(t.Context(), key+"/", strings.NewReader("x"))
			require.ErrorIs(t, err, fs.ErrInvalid, "%q", key)
			_, err = w.Open(t.Context(), key, 0, -1)
			require.ErrorIs(t, err, fs.ErrInvalid, "%q", key)
			_, err = w.Stat(t.Context(), key)
			require.ErrorIs(t, err, fs.ErrInvalid, "%q", key)
			require.ErrorIs(t, w.Delete(t.Context(), key), fs.ErrInvalid, "%q", key)
		}
		_, err := w.PutHashed(t.Context(), "no-slash", strings.NewReader("x"))
		require.ErrorIs(t, err, fs.ErrInvalid)
		for _, err := range w.List(t.Context(), "../") {
			require.ErrorIs(t, err, fs.ErrInvalid)
		}
		require.Equal(t, before, files(t, filepath.Dir(w.dir)))
	})
}

// files are the paths below dir but for the stores' own.
func files(t *testing.T, dir string) (paths []string) {
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		paths = append(paths, p)
		return err
	}))
	return paths
}

func TestListAndDelete(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		require.Empty(t, list(t, w.Store, ""))
		keys := []string{"a!b", "a/b", "a/b0", "a/c/d", "a/c.d", "a0", "b/" + digest("x"), "workers/local/1.json"}
		for i := range keys {
			put(t, w.Store, keys[len(keys)-1-i], strings.Repeat("x", 1))
		}
		ordered := []string{"a!b", "a/b", "a/b0", "a/c.d", "a/c/d", "a0", "b/" + digest("x"), "workers/local/1.json"}
		require.Equal(t, ordered, list(t, w.Store, ""))
		require.Equal(t, ordered[1:5], list(t, w.Store, "a/"))
		require.Equal(t, ordered[:6], list(t, w.Store, "a"))
		require.Equal(t, ordered[1:3], list(t, w.Store, "a/b"))
		require.Equal(t, ordered[3:5], list(t, w.Store, "a/c"))
		require.Equal(t, ordered[4:5], list(t, w.Store, "a/c/"))
		require.Empty(t, list(t, w.Store, "nope/"))
		require.Empty(t, list(t, w.Store, "a/b/"))
		for b, err := range w.List(t.Context(), "b/") {
			require.NoError(t, err)
			require.EqualValues(t, 1, b.Size)
			require.Equal(t, digest("x"), b.SHA256)
			require.WithinDuration(t, time.Now(), b.Modified, time.Minute)
		}
		for range w.List(t.Context(), "") {
			break // an early end is allowed
		}
		for _, key := range keys {
			require.NoError(t, w.Delete(t.Context(), key))
		}
		require.Empty(t, list(t, w.Store, ""))
		require.Len(t, files(t, w.dir), 1, "empty folders stay behind")
	})
}

func TestListOfManyPages(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		var g errgroup.Group
		g.SetLimit(8)
		for i := range 1100 {
			g.Go(func() error {
				_, err := w.Put(t.Context(), fmt.Sprintf("many/%04d", i), strings.NewReader("x"))
				return err
			})
		}
		require.NoError(t, g.Wait())
		keys := list(t, w.Store, "many/")
		require.Len(t, keys, 1100)
		require.Equal(t, "many/1099", keys[1099])
	})
}

func TestSameKeyFromManyGoroutines(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		texts := []string{strings.Repeat("a", 3<<20), strings.Repeat("b", 2<<20)}
		put(t, w.Store, "k/k", texts[0])
		var writers, readers errgroup.Group
		done := make(chan struct{})
		for i := range 8 {
			writers.Go(func() error {
				for range 5 {
					if _, err := w.Put(t.Context(), "k/k", strings.NewReader(texts[i%2])); err != nil {
						return err
					}
					if _, err := w.PutHashed(t.Context(), "k/", strings.NewReader(texts[i%2])); err != nil {
						return err
					}
				}
				return nil
			})
		}
		reads := 0
		readers.Go(func() error {
			for {
				got, err := read(t.Context(), w.Store, "k/k", 0, -1)
				if err != nil {
					return err
				}
				if got != texts[0] && got != texts[1] {
					return fmt.Errorf("read a mixture of %d bytes", len(got))
				}
				reads++
				select {
				case <-done:
					return nil
				default:
				}
			}
		})
		require.NoError(t, writers.Wait())
		close(done)
		require.NoError(t, readers.Wait())
		require.Len(t, list(t, w.Store, "k/"), 3)
		t.Logf("%d reads meanwhile", reads)
	})
}

// The folder only: versitygw, which keeps folders too, answers 409 here now and then.
func TestPutWhileNeighboursAreDeleted(t *testing.T) {
	w := newFolder(t)
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			key := fmt.Sprintf("jobs/j/%d", i)
			for range 200 {
				if _, err := w.Put(t.Context(), key, strings.NewReader("x")); err != nil {
					return err
				}
				if _, err := w.Stat(t.Context(), key); err != nil {
					return err
				}
				if err := w.Delete(t.Context(), key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
}

func TestPing(t *testing.T) {
	each(t, func(t *testing.T, w world) {
		require.NoError(t, w.Ping(t.Context()))
		require.Empty(t, list(t, w.Store, ""), "the ping's object shows")
	})
}

func TestOpenRefuses(t *testing.T) {
	for url, says := range map[string]string{
		"":                               "no URL given",
		"file://host/path":               "file:///absolute/path",
		"file://":                        "file:///absolute/path",
		"ftp://host/path":                "ftp://",
		"s3://bkt?nonsense=1":            "nonsense",
		"s3://bkt?a=%zzsecret":           "cannot be read",
		"s3://user:secret@bkt":           "AWS_ACCESS_KEY_ID",
		"s3://bkt?use_path_style=maybee": "use_path_style",
	} {
		_, err := openOnly(t, url)
		require.Error(t, err, url)
		requireError(t, err, false)
		require.ErrorIs(t, err, fs.ErrInvalid, url)
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), "secret")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600))
	_, err := openOnly(t, filepath.Join(dir, "file"))
	requireError(t, err, false)
	s := openStore(t, "file://"+dir+"/new/folder")
	require.NoError(t, s.Ping(t.Context()))
}
