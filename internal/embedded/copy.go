//go:build !noembedded

package embedded

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"modernc.org/sqlite"
)

// copyPages is how many pages are copied between two looks at the context.
const copyPages = 4096

// CopyDatabase copies the database of a data folder into a new file: the state of one moment, complete without a log, and
// checked. A server may run on the database meanwhile, and is not held up. The errors are [*Error]; after one, what is at
// target is of no use.
func CopyDatabase(ctx context.Context, dataDir, target string) (Database, error) {
	d := newDatabase(dataDir)
	size, err := fileSize(d.path)
	if err != nil {
		return Database{}, fail(FolderUnusable, err, "cannot look at %s: %v", d.path, err)
	}
	if size == 0 {
		return Database{}, fail(NoDatabase, nil, "there is no database at %s: is COMFYD_DATA_DIR the folder of the comfyd that is meant?", d.path)
	}
	have, err := d.copyTo(ctx, target)
	if err == nil {
		err = seal(ctx, target)
	}
	if err != nil {
		return Database{}, typed(CopyFailed, err, "copying "+d.path+" to "+target)
	}
	return Database(have), nil
}

// copyTo uses SQLite's backup, which copies pages, and not VACUUM INTO: a VACUUM may give rows other rowids, by which the
// visibility's full-text tables point to them.
func (d *database) copyTo(ctx context.Context, target string) (have version, err error) {
	db, err := d.openToRead()
	if err != nil {
		return have, err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return have, err
	}
	defer conn.Close()
	// Within one read transaction the backup sees one moment, whatever is written meanwhile; else it would begin anew.
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return have, err
	}
	defer func() {
		_, after := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		err = errors.Join(err, after)
	}()
	if have, err = readVersion(ctx, conn, d.path); err != nil {
		return have, err
	}
	return have, conn.Raw(func(driver any) error {
		b, err := driver.(interface {
			NewBackup(uri string) (*sqlite.Backup, error)
		}).NewBackup("file:" + uriPath(target))
		if err != nil {
			return err
		}
		more := true
		for more && err == nil {
			if err = ctx.Err(); err == nil {
				more, err = b.Step(copyPages)
			}
		}
		return errors.Join(err, b.Finish())
	})
}

// seal makes a copy complete in itself and durable, and reads all of it.
func seal(ctx context.Context, path string) error {
	db, err := open(path, "rw", "journal_mode(DELETE)", "synchronous(FULL)") // a copy has its source's mode, WAL
	if err != nil {
		return err
	}
	if err := errors.Join(verdict(ctx, db, "integrity_check(1)"), db.Close(), os.Chmod(path, 0o600)); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// CheckDatabase reads the whole of a database file that no server has open, and tells whether this program's server can
// run on it. It changes nothing. The errors are [*Error]; its kinds are Corrupt, SchemaOlder and SchemaNewer.
func CheckDatabase(ctx context.Context, path string) error {
	d := &database{path: path}
	db, err := d.openToRead()
	if err != nil {
		return d.unreadable(err)
	}
	defer db.Close()
	_, err = checkVersion(ctx, db, path)
	if err == nil {
		err = verdict(ctx, db, "integrity_check(1)")
	}
	if ctx.Err() != nil {
		return typed(CopyFailed, ctx.Err(), "checking "+path)
	}
	return d.unreadable(err)
}

// Lock makes a data folder and keeps every server out of it until unlock is called or the process ends. The errors are
// [*Error]: FolderLocked where a server runs there.
func Lock(dataDir string) (unlock func() error, err error) {
	folder, err := filepath.Abs(dataDir)
	if err != nil {
		return nil, fail(FolderUnusable, err, "the data folder %s: %v", dataDir, err)
	}
	lock, err := lockFolder(folder)
	if err != nil {
		return nil, err
	}
	return lock.Unlock, nil
}
