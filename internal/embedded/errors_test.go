//go:build !noembedded

package embedded

import (
	"database/sql"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
)

// alter changes a database file that no server has open.
func alter(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	require.NoError(t, err)
	defer db.Close()
	for _, s := range statements {
		_, err := db.Exec(s)
		require.NoError(t, err)
	}
}

// A wrong start is one line of a known kind, never a panic or an exit, and leaves the folder unlocked.
func TestWrongStarts(t *testing.T) {
	// A database as the server leaves it, for the cases that damage one.
	made, _ := testOptions(t)
	require.NoError(t, start(t, made).Stop())
	good, err := os.ReadFile(filepath.Join(made.DataDir, databaseFile))
	require.NoError(t, err)

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()

	write := func(name string, b []byte) func(t *testing.T, o *Options) {
		return func(t *testing.T, o *Options) {
			require.NoError(t, os.WriteFile(filepath.Join(o.DataDir, name), b, 0o600))
		}
	}
	altered := func(statements ...string) func(t *testing.T, o *Options) {
		return func(t *testing.T, o *Options) {
			write(databaseFile, good)(t, o)
			alter(t, filepath.Join(o.DataDir, databaseFile), statements...)
		}
	}
	for name, tt := range map[string]struct {
		arrange func(t *testing.T, o *Options)
		kind    Kind
		says    string
	}{
		"no folder":      {func(_ *testing.T, o *Options) { o.DataDir = "" }, BadOptions, "DataDir"},
		"retention":      {func(_ *testing.T, o *Options) { o.Retention = time.Minute }, BadOptions, "COMFYD_RETENTION"},
		"frontend taken": {func(_ *testing.T, o *Options) { o.Listen = taken.Addr().String() }, AddressTaken, "in use by another program: stop that program, or set COMFYD_TEMPORAL_LISTEN"},
		"UI taken":       {func(_ *testing.T, o *Options) { o.UIListen = taken.Addr().String() }, AddressTaken, "in use by another program: stop that program, or set COMFYD_TEMPORAL_UI_LISTEN"},
		"UI on the frontend's port": {func(t *testing.T, o *Options) {
			ports, err := reserve(1)
			require.NoError(t, err)
			o.Listen = (&net.TCPAddr{IP: net.ParseIP(loopback), Port: ports[0]}).String()
			o.UIListen = o.Listen
		}, AddressTaken, "COMFYD_TEMPORAL_UI_LISTEN"},
		"no such address": {func(_ *testing.T, o *Options) { o.Listen = "192.0.2.1:0" }, AddressTaken, "192.0.2.1"},
		"folder is a file": {func(t *testing.T, o *Options) {
			write("data", nil)(t, o)
			o.DataDir = filepath.Join(o.DataDir, "data")
		}, FolderUnusable, "COMFYD_DATA_DIR"},
		"folder cannot be written": {func(t *testing.T, o *Options) {
			o.DataDir = "/proc/self/fdinfo/data" // not even root can make folders there
		}, FolderUnusable, "COMFYD_DATA_DIR"},
		"database is a folder": {func(t *testing.T, o *Options) {
			require.NoError(t, os.Mkdir(filepath.Join(o.DataDir, databaseFile), 0o700))
		}, FolderUnusable, databaseFile},
		"not a database": {write(databaseFile, []byte(strings.Repeat("not a database ", 1000))), Corrupt, "backup"},
		"cut short":      {write(databaseFile, good[:len(good)/2]), Corrupt, "backup"},
		"zeros in the middle": {func(t *testing.T, o *Options) {
			b := append([]byte(nil), good...)
			clear(b[4096*2 : len(b)/2])
			write(databaseFile, b)(t, o)
		}, Corrupt, "backup"},
		"two tables on one page": {altered("PRAGMA writable_schema = 1",
			"UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'shards') WHERE name = 'namespaces'",
		), Corrupt, "2nd reference to page"},
		"log without database": {write(databaseFile+"-wal", []byte("frames")), Corrupt, databaseFile + "-wal"},
		"empty with log": {func(t *testing.T, o *Options) {
			write(databaseFile, nil)(t, o)
			write(databaseFile+"-wal", []byte("frames"))(t, o)
		}, Corrupt, databaseFile + "-wal"},
		"another program's": {altered("DROP TABLE comfyd_version"), SchemaOlder, "not made by comfyd"},
		"older schema":      {altered("UPDATE comfyd_version SET schema = '0.9', digest = 'x', server = '1.20.0'"), SchemaOlder, "Temporal 1.20.0"},
		"newer schema":      {altered("UPDATE comfyd_version SET schema = '0.111', digest = 'x'"), SchemaNewer, "newer comfyd"},
		"record is broken":  {altered("DELETE FROM comfyd_version"), Corrupt, "backup"},
		"attribute of another type": {func(t *testing.T, o *Options) {
			write(databaseFile, good)(t, o)
			o.SearchAttributes["TestName"] = enums.INDEXED_VALUE_TYPE_INT
		}, BadOptions, "TestName"},
		"too many attributes": {func(_ *testing.T, o *Options) {
			for _, n := range []string{"A", "B", "C", "D"} {
				o.SearchAttributes[n] = enums.INDEXED_VALUE_TYPE_KEYWORD_LIST
			}
		}, BadOptions, "no room"},
	} {
		t.Run(name, func(t *testing.T) {
			o, log := testOptions(t)
			tt.arrange(t, &o)
			s, err := Start(t.Context(), o)
			require.Nil(t, s)
			require.ErrorIs(t, err, tt.kind)
			require.ErrorAs(t, err, new(*Error))
			require.ErrorContains(t, err, tt.says)
			require.NotContains(t, err.Error(), "\n")
			require.Equal(t, []string{""}, log.lines(), "the error says it all")
			t.Log(err)
			if tt.kind != BadOptions && tt.kind != FolderUnusable {
				lock, err := lockFolder(o.DataDir)
				require.NoError(t, err)
				require.NoError(t, lock.Unlock())
			}
		})
	}
}

func TestLockedFolder(t *testing.T) {
	o, _ := testOptions(t)
	s := start(t, o)
	_, err := Start(t.Context(), o)
	require.ErrorIs(t, err, FolderLocked)
	require.ErrorContains(t, err, o.DataDir)
	require.NoError(t, s.Stop())
	start(t, o)
}

func TestEmptyDatabaseFileIsSetUp(t *testing.T) {
	o, _ := testOptions(t)
	for _, leftover := range []string{databaseFile, databaseFile + ".new", databaseFile + ".new-journal"} {
		require.NoError(t, os.WriteFile(filepath.Join(o.DataDir, leftover), nil, 0o600))
	}
	s := start(t, o)
	c := dial(t, s)
	startWorker(t, c)
	require.NoError(t, run(t.Context(), c, "job", 1, 0))
}

// The server lets the port go before it takes it; what happens when another program is faster.
func TestPortLostWhileStarting(t *testing.T) {
	for name, lose := range map[string]func(frontend string, ports []int) string{
		"frontend": func(frontend string, _ []int) string { return frontend },
		"history": func(_ string, ports []int) string {
			return (&net.TCPAddr{IP: net.ParseIP(loopback), Port: ports[0]}).String()
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := testOptions(t)
			s := &Server{log: newServerLogger(nil), db: newDatabase(o.DataDir)}
			o.Namespace = "default"
			require.NoError(t, s.db.prepare(t.Context()))
			require.NoError(t, s.db.prepareNamespace(t.Context(), o, s.log))
			frontend, err := bind("127.0.0.1:0", "")
			require.NoError(t, err)
			ports, err := reserve(servicePorts)
			require.NoError(t, err)
			require.NoError(t, frontend.Close())
			thief, err := net.Listen("tcp", lose(frontend.Addr().String(), ports))
			require.NoError(t, err)
			defer thief.Close()
			err = s.launch(frontend.Addr().(*net.TCPAddr), ports)
			require.ErrorIs(t, err, StartFailed)
			t.Log(err)
		})
	}
}

func assign(m map[string]int) error {
	m["a"] = 1
	return nil
}

func TestGuard(t *testing.T) {
	s := &Server{log: newServerLogger(nil)}
	for name, f := range map[string]func() error{
		"panic":   func() error { panic("no\nport") },
		"nil map": func() error { return assign(nil) },
		"fatal":   func() error { s.log.Fatal("no port"); panic("Fatal returned") },
		"panic()": func() error { s.log.With().(*serverLogger).Panic("no port"); panic("Panic returned") },
	} {
		err := s.guard(f)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "returned", name)
		require.NotContains(t, typed(StartFailed, err, "trying").Error(), "\n", name)
	}
	require.NoError(t, s.guard(func() error { return nil }))
}
