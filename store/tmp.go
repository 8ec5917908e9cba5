package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
)

// tmpRoot is where files are written before they get their names. It is in the store's own folder, because a rename
// works within one file system only.
const tmpRoot = ".tmp"

// tmpFolder is this process's part of tmpRoot. A lock beside it, which the system drops when the process dies, tells
// the others that it is in use; process IDs would not do, because hosts may share the folder.
type tmpFolder struct {
	root *os.Root
	dir  string
	lock *flock.Flock
}

func openTmp(root *os.Root) (*tmpFolder, error) {
	if err := root.Mkdir(tmpRoot, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := sweepTmp(root); err != nil {
		return nil, err
	}
	t := &tmpFolder{root: root}
	for !t.locked() {
		t.dir = path.Join(tmpRoot, rand.Text())
		// The lock comes before the folder, so that a sweeper never sees the folder without it.
		t.lock = flock.New(filepath.Join(root.Name(), t.dir) + ".lock")
		if _, err := t.lock.TryLock(); err != nil {
			return nil, fmt.Errorf("locking %s: %w", t.lock.Path(), err)
		}
	}
	if err := root.Mkdir(t.dir, 0o700); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// locked is false when a sweeper took the new lock file for a dead process's: it came between its making and its locking.
func (t *tmpFolder) locked() bool {
	if t.lock == nil || !t.lock.Locked() {
		return false
	}
	held, err := t.lock.Stat()
	if err != nil {
		return false
	}
	there, err := t.root.Stat(t.dir + ".lock")
	return err == nil && os.SameFile(held, there)
}

func (t *tmpFolder) close() error {
	return errors.Join(t.root.RemoveAll(t.dir), t.root.RemoveAll(t.dir+".lock"), t.lock.Unlock())
}

// sweepTmp removes what dead processes have left.
func sweepTmp(root *os.Root) error {
	d, err := root.Open(tmpRoot)
	if err != nil {
		return err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, isLock := strings.CutSuffix(e.Name(), ".lock")
		if !isLock {
			continue
		}
		lock := flock.New(filepath.Join(root.Name(), tmpRoot, e.Name()))
		if locked, err := lock.TryLock(); err != nil || !locked {
			continue
		}
		dead := tmpFolder{root: root, dir: path.Join(tmpRoot, name), lock: lock}
		if err := dead.close(); err != nil {
			return err
		}
	}
	return nil
}
