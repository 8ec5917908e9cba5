//go:build !noembedded

package embedded

import (
	"database/sql"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	persistencespb "go.temporal.io/server/api/persistence/v1"
)

func prepared(t *testing.T) *database {
	t.Helper()
	d := newDatabase(t.TempDir())
	require.NoError(t, d.prepare(t.Context()))
	return d
}

func TestDurable(t *testing.T) {
	require.NoError(t, prepared(t).verifyDurable())
	for pragma, value := range map[string]string{"synchronous": "NORMAL", "journal_mode": "DELETE"} {
		d := prepared(t)
		d.sql.ConnectAttributes[pragma] = value
		require.ErrorIs(t, d.verifyDurable(), StartFailed, pragma)
	}
}

// Whoever sees the database sees all of it: a process killed at any moment leaves a whole one or none.
func TestCreateIsAtomic(t *testing.T) {
	d := newDatabase(t.TempDir())
	made := make(chan error, 1)
	go func() { made <- d.prepare(t.Context()) }()
	for {
		_, err := os.Stat(d.path)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	require.NoError(t, newDatabase(filepath.Dir(d.path)).check(t.Context()))
	require.NoError(t, <-made)
}

func TestPrepareIsPrivateAndRepeatable(t *testing.T) {
	d := prepared(t)
	require.NoError(t, d.prepare(t.Context()))
	info, err := os.Stat(d.path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	files, err := filepath.Glob(d.path + "*")
	require.NoError(t, err)
	require.Equal(t, []string{d.path}, files, "nothing else is left")
}

// An upgrade of the server that leaves the schema alone needs nothing, and is remembered.
func TestServerUpgradeWithSameSchema(t *testing.T) {
	d := prepared(t)
	alter(t, d.path, "UPDATE comfyd_version SET server = '1.30.0', schema = '0.1'")
	require.NoError(t, d.prepare(t.Context()))
	db, err := sql.Open("sqlite", d.path)
	require.NoError(t, err)
	defer db.Close()
	var server string
	require.NoError(t, db.QueryRow("SELECT server FROM comfyd_version").Scan(&server))
	now, err := currentVersion()
	require.NoError(t, err)
	require.Equal(t, now.Server, server)
}

func TestCurrentVersion(t *testing.T) {
	v, err := currentVersion()
	require.NoError(t, err)
	again, err := currentVersion()
	require.NoError(t, err)
	require.Equal(t, v, again)
	// When this fails, the server module's schema has changed: data folders out there have the old one. Write the
	// migration in checkVersion, then set the new values here.
	require.Equal(t, version{
		Schema: "0.11", Visibility: "0.1", Server: v.Server, Digest: "0a6154fc3d58a99d28572e2a8958610b30fac1db80aebbaeb471bbb000f76fbe",
	}, v)
}

func TestNewer(t *testing.T) {
	for _, tt := range []struct {
		a, b  version
		newer bool
	}{
		{version{Schema: "0.11"}, version{Schema: "0.9"}, true},
		{version{Schema: "0.9"}, version{Schema: "0.11"}, false},
		{version{Schema: "0.11", Visibility: "0.2"}, version{Schema: "0.11", Visibility: "0.1"}, true},
		{version{Schema: "0.11", Visibility: "0.1", Server: "1.33.0"}, version{Schema: "0.11", Visibility: "0.1", Server: "1.32.1"}, true},
		{version{Schema: "?", Server: "1.31.0"}, version{Schema: "0.11", Server: "1.32.1"}, false},
		{version{}, version{}, false},
	} {
		require.Equal(t, tt.newer, tt.a.newer(tt.b), "%v after %v", tt.a, tt.b)
	}
}

func TestConfigure(t *testing.T) {
	keyword, integer := enums.INDEXED_VALUE_TYPE_KEYWORD, enums.INDEXED_VALUE_TYPE_INT
	n := &persistencespb.NamespaceDetail{Config: &persistencespb.NamespaceConfig{}}
	want := map[string]enums.IndexedValueType{"B": keyword, "A": keyword, "N": integer}
	changed, err := configure(n, time.Hour, want)
	require.NoError(t, err)
	require.True(t, changed)
	require.Equal(t, time.Hour, n.Config.Retention.AsDuration())
	aliases := map[string]string{"Keyword01": "A", "Keyword02": "B", "Int01": "N"}
	require.Equal(t, aliases, n.Config.CustomSearchAttributeAliases)

	changed, err = configure(n, time.Hour, want)
	require.NoError(t, err)
	require.False(t, changed)

	changed, err = configure(n, time.Hour, map[string]enums.IndexedValueType{"C": keyword})
	require.NoError(t, err)
	require.True(t, changed)
	aliases["Keyword03"] = "C"
	require.Equal(t, aliases, n.Config.CustomSearchAttributeAliases, "what others registered stays")
}

func TestReserve(t *testing.T) {
	ports, err := reserve(20)
	require.NoError(t, err)
	seen := map[int]bool{}
	for _, p := range ports {
		seen[p] = true
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(loopback), Port: p})
		require.NoError(t, err, "a reserved port can be listened on")
		defer l.Close()
	}
	require.Len(t, seen, 20)
}

func TestReachable(t *testing.T) {
	for ip, want := range map[string]string{
		"127.0.0.1": "127.0.0.1:7", "0.0.0.0": "127.0.0.1:7", "::": "127.0.0.1:7", "::1": "[::1]:7", "127.0.0.9": "127.0.0.9:7",
	} {
		require.Equal(t, want, reachable(&net.TCPAddr{IP: net.ParseIP(ip), Port: 7}))
	}
}
