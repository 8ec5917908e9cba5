package app_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/app"
	"github.com/comfyd/comfyd/internal/config"
)

// TestAStoreHasOneOwner: a start takes a store that nobody has, goes on with its own, and refuses another's, unless it is
// the folder beside its own database.
func TestAStoreHasOneOwner(t *testing.T) {
	dir, shared := t.TempDir(), t.TempDir()
	log, notes := test.NewNullLogger()
	run := func(data, store string) error {
		vars := map[string]string{
			"COMFYD_DATA_DIR": data, "COMFYD_LISTEN": "127.0.0.1:0", "COMFYD_TEMPORAL_LISTEN": "127.0.0.1:0",
			"COMFYD_TEMPORAL_UI_LISTEN": "127.0.0.1:0", "COMFYD_BACKEND": "url", "COMFYUI_URLS": "http://127.0.0.1:1",
		}
		if store != "" {
			vars["COMFYD_STORE_URL"] = store
		}
		c, err := config.Parse(vars)
		require.NoError(t, err)
		c.Keys = []config.Key{{Tenant: "alice", Secret: secret}}
		c.Signing = []byte("0123456789abcdef0123456789abcdef")
		a := app.New(c, app.Serve, "test", log)
		ctx, done := context.WithTimeout(context.Background(), time.Minute)
		defer done()
		defer a.Stop(ctx)
		return a.Start(ctx)
	}
	owner := func(store string) string {
		raw, err := os.ReadFile(filepath.Join(store, "owner", "namespace"))
		require.NoError(t, err)
		require.NotEmpty(t, raw)
		return string(raw)
	}
	blobs := filepath.Join(dir, "blobs")
	require.NoError(t, run(dir, ""))
	first := owner(blobs)
	require.NoError(t, run(dir, ""))
	require.Equal(t, first, owner(blobs), "it survives a restart")

	require.NoError(t, run(dir, "file://"+shared))
	require.Equal(t, first, owner(shared))
	err := run(t.TempDir(), "file://"+shared)
	require.ErrorIs(t, err, app.ErrForeignStore)
	require.ErrorContains(t, err, "remove the object owner/namespace from the store")
	require.Equal(t, first, owner(shared))

	// The files lie beside another database, as after one was moved away to begin anew.
	anew := t.TempDir()
	require.NoError(t, os.Rename(blobs, filepath.Join(anew, "blobs")))
	blobs = filepath.Join(anew, "blobs")
	notes.Reset()
	require.NoError(t, run(anew, ""))
	require.NotEqual(t, first, owner(blobs))
	var said string
	for _, e := range notes.AllEntries() {
		said += e.Message + "\n"
	}
	require.Contains(t, said, "takes them over")
}
