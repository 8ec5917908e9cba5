//go:build !noembedded

package embedded

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/metrics"
	persistencesql "go.temporal.io/server/common/persistence/sql"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite" // and the driver of the same name
	"go.temporal.io/server/common/resolver"
	sqliteschema "go.temporal.io/server/schema/sqlite"
)

const (
	databaseFile = DatabaseFile
	// checkTime bounds the look over the whole file at start: a big one that is probably fine must not keep jobs waiting.
	checkTime = time.Second
)

// database is temporal.db in the data folder.
type database struct {
	path string
	sql  *config.SQL
}

func newDatabase(folder string) *database {
	path := filepath.Join(folder, databaseFile)
	return &database{path: path, sql: &config.SQL{
		PluginName:   sqlite.PluginName,
		DatabaseName: uriPath(path),
		// One connection: SQLite has one writer, and a second one would meet "database is locked" in transactions that
		// read before they write.
		MaxConns: 1, MaxIdleConns: 1,
		ConnectAttributes: map[string]string{
			"mode":         "rw", // never make an empty file: the server cannot start on one
			"journal_mode": "WAL",
			// A commit is on the disk when it returns. What we answer 202 for must survive the machine as well.
			"synchronous":  "FULL",
			"busy_timeout": "5000", // a backup's connection may hold the lock for a moment
			// A burst must not leave a log of its size behind for good. 64 MiB.
			"journal_size_limit": "67108864",
		},
	}}
}

func (d *database) persistence() config.Persistence {
	return config.Persistence{
		DefaultStore: storeName, VisibilityStore: storeName, NumHistoryShards: shards,
		DataStores: map[string]config.DataStore{storeName: {SQL: d.sql}},
	}
}

// uriPath escapes what has a meaning in the file: URI into which the server puts the path.
func uriPath(path string) string {
	return strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(filepath.ToSlash(path))
}

// open opens the file with a connection of our own, which can be closed; the server's are kept for good.
func open(path, mode string, pragmas ...string) (*sql.DB, error) {
	query := url.Values{"mode": {mode}, "_pragma": append([]string{"busy_timeout(5000)"}, pragmas...)}
	db, err := sql.Open("sqlite", "file:"+uriPath(path)+"?"+query.Encode())
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

// prepare makes the database where there is none, and refuses one that the server could not run on.
func (d *database) prepare(ctx context.Context) error {
	size, err := fileSize(d.path)
	if err != nil {
		return fail(FolderUnusable, err, "cannot look at %s: %v", d.path, err)
	}
	if size > 0 {
		return d.check(ctx)
	}
	wal, err := fileSize(d.path + "-wal")
	if err != nil {
		return fail(FolderUnusable, err, "cannot look at %s-wal: %v", d.path, err)
	}
	if wal > 0 {
		// SQLite would play this log into the new file.
		return fail(Corrupt, nil, "%s is missing or empty, but its log %s-wal is there: put the database back beside it, or remove the log as well to start with no jobs", d.path, databaseFile)
	}
	return d.create(ctx)
}

func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("it is not a regular file")
	}
	return info.Size(), nil
}

// create sets the schema up in a file of another name and renames it: a process killed in between leaves no half of a
// database. The new file is not in WAL mode yet, so that it is complete without its log.
func (d *database) create(ctx context.Context) error {
	temporary := d.path + ".new"
	failed := func(err error) error {
		return fail(FolderUnusable, err, "cannot set up the database of the embedded Temporal in %s: %v", filepath.Dir(d.path), err)
	}
	for _, leftover := range []string{temporary, temporary + "-journal", d.path + "-shm", d.path + "-wal"} {
		if err := os.Remove(leftover); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failed(err)
		}
	}
	db, err := open(temporary, "rwc", "synchronous(FULL)")
	if err != nil {
		return failed(err)
	}
	defer db.Close()
	err = inTransaction(ctx, db, func(tx *sql.Tx) error {
		if err := sqliteschema.SetupSchemaOnDB(&schemaTarget{exec: func(stmt string) error {
			_, err := tx.ExecContext(ctx, stmt)
			return err
		}}); err != nil {
			return err
		}
		return writeVersion(ctx, tx)
	})
	if err := errors.Join(err, db.Close(), os.Chmod(temporary, 0o600)); err != nil { // prompts are private
		return failed(err)
	}
	if err := os.Rename(temporary, d.path); err != nil {
		return failed(err)
	}
	if err := syncFolder(filepath.Dir(d.path)); err != nil {
		return failed(err)
	}
	return nil
}

func inTransaction(ctx context.Context, db *sql.DB, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// check reads the version record and, while time allows, the whole file. It writes only when the file is to be used: one
// that is refused stays as it was, byte for byte, its log included.
func (d *database) check(ctx context.Context) error {
	db, err := d.openToRead()
	if err != nil {
		return d.unreadable(err)
	}
	defer db.Close()
	have, err := checkVersion(ctx, db, d.path)
	if err != nil {
		return d.unreadable(err)
	}
	limited, done := context.WithTimeout(ctx, checkTime)
	defer done()
	if err := verdict(limited, db, "quick_check(1)"); err != nil && limited.Err() == nil {
		return d.unreadable(err)
	}
	if err := errors.Join(ctx.Err(), db.Close()); err != nil {
		return err
	}
	return d.unreadable(d.noteServer(ctx, have))
}

// openToRead opens the file so that neither it nor its log is changed, not even by the last one to close it.
func (d *database) openToRead() (*sql.DB, error) {
	journal, err := fileSize(d.path + "-journal")
	if err != nil {
		return nil, err
	}
	if journal > 0 { // a process that died while it switched to WAL: only a writer can take that back
		return open(d.path, "rw")
	}
	return open(d.path, "ro")
}

// verdict runs one of SQLite's checks.
func verdict(ctx context.Context, db *sql.DB, pragma string) error {
	var said string
	if err := db.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&said); err != nil {
		return err
	}
	if said != "ok" {
		return errors.New(said)
	}
	return nil
}

func (d *database) unreadable(err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return fail(Corrupt, err, "%s cannot be used (%v): restore it from a backup, or move it away with its -wal and -shm files to start with no jobs", d.path, err)
}

// verifyDurable asks the server's own connection, of which there is one, whether it really runs as it was told: a typing
// error in a pragma is silent in SQLite.
func (d *database) verifyDurable() error {
	admin, err := persistencesql.NewSQLAdminDB(sqlplugin.DbKindUnknown, d.sql, resolver.NewNoopResolver(), log.NewNoopLogger(), metrics.NoopMetricsHandler)
	if err != nil {
		return err
	}
	defer admin.Close()
	// The interface runs statements but returns no rows, so the question is put as an error: abs of the smallest integer.
	err = admin.Exec(`SELECT CASE WHEN (SELECT synchronous FROM pragma_synchronous) = 2
		AND (SELECT journal_mode FROM pragma_journal_mode) = 'wal' THEN 1 ELSE abs(-9223372036854775807 - 1) END`)
	if err != nil {
		return fail(StartFailed, err, "%s is not in WAL mode with synchronous=FULL, as it has to be (%v): is its file system one that SQLite supports?", d.path, err)
	}
	return nil
}

// checkpoint brings the log into the database file, so that after a stop this one file is all there is to back up. The
// server does not do so.
func (d *database) checkpoint(ctx context.Context) error {
	db, err := open(d.path, "rw")
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return errors.Join(err, db.Close())
}
