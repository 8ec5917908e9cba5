package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
)

// sayEvery is how often a long copy says how far it is.
const sayEvery = 5 * time.Second

// Tree is how much a folder of files holds.
type Tree struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Damaged are the files whose name is a SHA-256, and not that of their bytes.
	Damaged []string `json:"damaged,omitempty"`
}

// put makes the file to of the file from, and tells its size and, where it has read it, the SHA-256 of its bytes.
type put func(ctx context.Context, from, to string) (File, error)

// copyTree puts all that lies below from to the new folder to. Names that begin with a dot are passed over, which no key
// of the store does: there lie files that are still being written. A file that goes while it is looked for was deleted.
func copyTree(ctx context.Context, o Options, from, to string, put put) (Tree, error) {
	var t Tree
	said := time.Now()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) && path != from {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case path != from && strings.HasPrefix(e.Name(), "."):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir():
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		case !e.Type().IsRegular(): // none of the store's
			return nil
		}
		f, err := put(ctx, path, filepath.Join(to, rel))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		t.Files++
		t.Bytes += f.Bytes
		if len(e.Name()) == 2*sha256.Size && f.SHA256 != "" && f.SHA256 != e.Name() {
			t.Damaged = append(t.Damaged, filepath.ToSlash(rel))
		}
		if time.Since(said) > sayEvery {
			said = time.Now()
			o.Say(fmt.Sprintf("%d files, %s", t.Files, humanize.IBytes(uint64(t.Bytes))))
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	return t, syncFolders(to)
}

// copyFile copies a file with the time of its last change, by which the sweep tells old from new, and makes it durable.
func copyFile(ctx context.Context, from, to string) (_ File, err error) {
	in, err := os.Open(from)
	if err != nil {
		return File{}, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return File{}, err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return File{}, err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), reader{ctx, in})
	err = errors.Join(err, out.Sync(), out.Close())
	if err == nil {
		err = os.Chtimes(to, info.ModTime(), info.ModTime())
	}
	return File{Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

// linkFile gives a file a second name. The store never writes into a file that it has named.
func linkFile(_ context.Context, from, to string) (File, error) {
	if err := os.Link(from, to); err != nil {
		return File{}, err
	}
	info, err := os.Lstat(to)
	if err != nil {
		return File{}, err
	}
	return File{Bytes: info.Size()}, nil
}

// copySmall copies one of the data folder's small files.
func copySmall(ctx context.Context, from, to string) error {
	if _, err := os.Stat(from); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if _, err := copyFile(ctx, from, to); err != nil {
		return err
	}
	return syncAll(filepath.Dir(to))
}

func sum(ctx context.Context, path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, reader{ctx, f})
	return File{Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

// reader stops when its context ends.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// syncFolders makes the names in all folders from dir on durable.
func syncFolders(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return syncAll(path)
	})
}

// syncAll makes files, or the names in folders, durable.
func syncAll(paths ...string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = f.Sync()
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
			err = nil // a folder on a network file system that cannot do so
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
