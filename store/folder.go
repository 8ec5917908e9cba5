package store

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"github.com/comfyd/comfyd/comfy"
)

// folder keeps each blob as a file named by its key. It reaches everything through an [os.Root], so that neither a key
// nor a symbolic link leads out.
type folder struct {
	root *os.Root
	tmp  *tmpFolder
}

func openFolder(dir string) (*folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	tmp, err := openTmp(root)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &folder{root: root, tmp: tmp}, nil
}

func (f *folder) close() error { return errors.Join(f.tmp.close(), f.root.Close()) }

func (f *folder) put(ctx context.Context, key string, r io.Reader) (comfy.Blob, error) {
	return f.write(ctx, r, func(string) string { return key }, false)
}

func (f *folder) putHashed(ctx context.Context, prefix string, r io.Reader) (comfy.Blob, error) {
	return f.write(ctx, r, func(digest string) string { return prefix + digest }, true)
}

// write makes a file beside the blobs, syncs it, and moves it to its name, so that a blob is whole from its first
// moment on, whatever dies meanwhile.
func (f *folder) write(ctx context.Context, r io.Reader, name func(digest string) string, keep bool) (_ comfy.Blob, err error) {
	tmp := path.Join(f.tmp.dir, rand.Text())
	file, err := f.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return comfy.Blob{}, err
	}
	defer func() {
		file.Close()
		if tmp != "" {
			f.root.Remove(tmp)
		}
	}()
	size, digest, err := intake(ctx, file, r)
	if err != nil {
		return comfy.Blob{}, err
	}
	key := name(digest)
	if err := checkDigest(key, digest); err != nil {
		return comfy.Blob{}, err
	}
	blob := comfy.Blob{Key: key, Size: size, SHA256: digest}
	if keep {
		there, err := f.stat(ctx, key)
		if err == nil && there.Size == size {
			err = f.touch(ctx, key)
			if !errors.Is(err, fs.ErrNotExist) { // somebody has just removed it
				return blob, err
			}
		}
	}
	if err := file.Sync(); err != nil {
		return comfy.Blob{}, err
	}
	if err := file.Close(); err != nil {
		return comfy.Blob{}, err
	}
	if err := f.move(tmp, key); err != nil {
		return comfy.Blob{}, err
	}
	tmp = ""
	return blob, nil
}

func (f *folder) touch(_ context.Context, key string) error {
	now := time.Now()
	return missing(f.root.Chtimes(key, now, now))
}

// move gives a file its name, making the folders on the way. A Delete at the same time may take an empty one away
// again, and so the whole is tried anew.
func (f *folder) move(tmp, key string) error {
	for attempt := 1; ; attempt++ {
		err := f.mkdirs(path.Dir(key))
		if err == nil {
			err = f.root.Rename(tmp, key)
		}
		if err == nil {
			return f.sync(path.Dir(key))
		}
		if !errors.Is(err, fs.ErrNotExist) || attempt == 10 {
			return err
		}
	}
}

// mkdirs makes a folder and those above it, and makes them durable.
func (f *folder) mkdirs(dir string) error {
	if dir == "." {
		return nil
	}
	switch err := f.root.Mkdir(dir, 0o700); {
	case err == nil:
		return f.sync(path.Dir(dir))
	case errors.Is(err, fs.ErrExist):
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := f.mkdirs(path.Dir(dir)); err != nil {
		return err
	}
	if err := f.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return f.sync(path.Dir(dir))
}

// sync makes a folder's entries durable. One that has gone meanwhile has nothing to keep.
func (f *folder) sync(dir string) error {
	d, err := f.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	// Some network file systems cannot sync a folder, and say so by EINVAL or ENOTSUP.
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

func (f *folder) open(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	file, err := f.root.Open(key)
	if err != nil {
		return nil, missing(err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err == nil && offset > 0 {
		_, err = file.Seek(offset, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	if length < 0 {
		return file, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(file, length), file}, nil
}

func (f *folder) stat(_ context.Context, key string) (comfy.Blob, error) {
	info, err := f.root.Stat(key)
	if err != nil {
		return comfy.Blob{}, missing(err)
	}
	if !info.Mode().IsRegular() {
		return comfy.Blob{}, fs.ErrNotExist
	}
	return blobOf(key, info), nil
}

func blobOf(key string, info fs.FileInfo) comfy.Blob {
	return comfy.Blob{Key: key, Size: info.Size(), SHA256: digestIn(key), Modified: info.ModTime()}
}

// missing says of a key below a blob what a bucket would say: there is none.
func missing(err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		return fs.ErrNotExist
	}
	return err
}

// remove deletes a blob and the folders that are empty then.
func (f *folder) remove(ctx context.Context, key string) error {
	if _, err := f.stat(ctx, key); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := f.root.Remove(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for dir := path.Dir(key); dir != "."; dir = path.Dir(dir) {
		if f.root.Remove(dir) != nil {
			break
		}
	}
	return nil
}

func (f *folder) ping(context.Context) error {
	name := path.Join(f.tmp.dir, rand.Text())
	defer f.root.Remove(name)
	file, err := f.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.WriteString(file, pingText); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return checkPing(io.NewSectionReader(file, 0, int64(len(pingText))))
}
