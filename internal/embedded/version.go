//go:build !noembedded

package embedded

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/blang/semver/v4"
	"go.temporal.io/server/common/headers"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	sqliteschema "go.temporal.io/server/schema/sqlite"
)

// version is what a database was made with. The server keeps no such record in SQLite and migrates nothing there, so
// we keep it in a table of our own: it goes where the file goes.
type version struct {
	Schema     string // of the module's schema/sqlite
	Visibility string // likewise
	Digest     string // of the statements, for the module's numbers have not always moved with them
	Server     string // the last Temporal server that ran on it
}

const versionTable = `CREATE TABLE comfyd_version (
	id INTEGER PRIMARY KEY CHECK (id = 1),
	schema TEXT NOT NULL, visibility TEXT NOT NULL, digest TEXT NOT NULL, server TEXT NOT NULL)`

// schemaTarget gets the statements of the module's schema. Only Exec is used on it.
type schemaTarget struct {
	sqlplugin.AdminDB
	exec func(stmt string) error
}

func (s *schemaTarget) Exec(stmt string, _ ...any) error { return s.exec(stmt) }

func currentVersion() (version, error) {
	h := sha256.New()
	err := sqliteschema.SetupSchemaOnDB(&schemaTarget{exec: func(stmt string) error {
		_, err := h.Write([]byte(strings.Join(strings.Fields(stmt), " ") + ";"))
		return err
	}})
	return version{sqliteschema.Version, sqliteschema.VisibilityVersion, hex.EncodeToString(h.Sum(nil)), headers.ServerVersion}, err
}

func writeVersion(ctx context.Context, tx *sql.Tx) error {
	v, err := currentVersion()
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, versionTable); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO comfyd_version VALUES (1, ?, ?, ?, ?)", v.Schema, v.Visibility, v.Digest, v.Server)
	return err
}

// querier is a database, or one connection to it.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func readVersion(ctx context.Context, db querier, path string) (version, error) {
	var tables int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE name = 'comfyd_version'").Scan(&tables); err != nil {
		return version{}, err
	}
	if tables == 0 {
		return version{}, fail(SchemaOlder, nil, "%s was not made by comfyd, or by one from before its first release: move it out of the data folder with its -wal and -shm files to start with no jobs", path)
	}
	var have version
	row := db.QueryRowContext(ctx, "SELECT schema, visibility, digest, server FROM comfyd_version")
	return have, row.Scan(&have.Schema, &have.Visibility, &have.Digest, &have.Server)
}

// checkVersion refuses a database with another schema than the server's, and changes nothing in it. There is no migration
// yet: the first change of the module's schema brings the first one, here.
func checkVersion(ctx context.Context, db querier, path string) (version, error) {
	want, err := currentVersion()
	if err != nil {
		return version{}, err
	}
	have, err := readVersion(ctx, db, path)
	if err != nil || have.Digest == want.Digest {
		return have, err
	}
	const differ = "%s is of Temporal %s (schema %s, %s), and this comfyd has Temporal %s (schema %s, %s): "
	versions := []any{path, have.Server, have.Schema, have.Visibility, want.Server, want.Schema, want.Visibility}
	if have.newer(want) {
		return have, fail(SchemaNewer, nil, differ+"start the newer comfyd that wrote it, or restore the backup from before the upgrade", versions...)
	}
	return have, fail(SchemaOlder, nil, differ+"it cannot be migrated; let the older comfyd finish its jobs, stop it, and move the file out of the data folder with its -wal and -shm files (stored images stay)", versions...)
}

// noteServer keeps which server runs on the database from now on.
func (d *database) noteServer(ctx context.Context, have version) error {
	want, err := currentVersion()
	if err != nil || have.Server == want.Server {
		return err
	}
	db, err := open(d.path, "rw")
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "UPDATE comfyd_version SET server = ?", want.Server)
	return errors.Join(err, db.Close())
}

func (v version) newer(than version) bool {
	for _, pair := range [][2]string{{v.Schema, than.Schema}, {v.Visibility, than.Visibility}, {v.Server, than.Server}} {
		a, errA := semver.ParseTolerant(pair[0])
		b, errB := semver.ParseTolerant(pair[1])
		if errA != nil || errB != nil {
			continue
		}
		if c := a.Compare(b); c != 0 {
			return c > 0
		}
	}
	return false
}
