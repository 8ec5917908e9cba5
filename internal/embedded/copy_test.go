//go:build !noembedded

package embedded

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
)

// contents are the files of a folder, but for what SQLite and the lock make for the running process alone.
func contents(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() == lockFile || e.Name() == databaseFile+"-shm" {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(folder, e.Name()))
		require.NoError(t, err)
		files[e.Name()] = string(raw)
	}
	return files
}

// withLog is a folder whose database a process has died on: some of it, and the change that the statements make, is in
// the log alone.
func withLog(t *testing.T, statements ...string) (folder string) {
	t.Helper()
	d := prepared(t)
	alter(t, d.path, "PRAGMA journal_mode = WAL")
	db, err := sql.Open("sqlite", d.path)
	require.NoError(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range append([]string{"CREATE TABLE in_the_log (a)"}, statements...) {
		_, err := db.Exec(s)
		require.NoError(t, err)
	}
	folder = t.TempDir()
	for name, raw := range contents(t, filepath.Dir(d.path)) {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(raw), 0o600))
	}
	size, err := fileSize(filepath.Join(folder, databaseFile+"-wal"))
	require.NoError(t, err)
	require.NotZero(t, size, "there is a log")
	return folder
}

// TestARefusedFolderIsLeftAsItWas: an older or newer comfyd, tried by mistake, costs nothing but its error.
func TestARefusedFolderIsLeftAsItWas(t *testing.T) {
	for name, tt := range map[string]struct {
		change string
		kind   Kind
	}{
		"older":       {"UPDATE comfyd_version SET schema = '0.10', digest = 'x', server = '1.30.0'", SchemaOlder},
		"newer":       {"UPDATE comfyd_version SET schema = '0.12', digest = 'x', server = '1.34.0'", SchemaNewer},
		"not comfyds": {"DROP TABLE comfyd_version", SchemaOlder},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := testOptions(t)
			o.DataDir = withLog(t, tt.change)
			before := contents(t, o.DataDir)
			_, err := Start(t.Context(), o)
			require.ErrorIs(t, err, tt.kind)
			require.Equal(t, before, contents(t, o.DataDir))
		})
	}
}

// TestCopyChangesNothing, where no server runs; and what is in the log alone is in the copy.
func TestCopyChangesNothing(t *testing.T) {
	folder := withLog(t)
	before := contents(t, folder)
	target := filepath.Join(t.TempDir(), "copy.db")
	have, err := CopyDatabase(t.Context(), folder, target)
	require.NoError(t, err)
	want, err := currentVersion()
	require.NoError(t, err)
	require.Equal(t, Database(want), have)
	require.Equal(t, before, contents(t, folder))
	require.NoError(t, CheckDatabase(t.Context(), target))
	require.Len(t, contents(t, filepath.Dir(target)), 1, "the copy needs no log")
	db, err := open(target, "ro")
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM in_the_log").Scan(new(int)))
}

func TestCopyFails(t *testing.T) {
	target := filepath.Join(t.TempDir(), "copy.db")
	_, err := CopyDatabase(t.Context(), t.TempDir(), target)
	require.ErrorIs(t, err, NoDatabase)
	_, err = CopyDatabase(t.Context(), withLog(t, "DROP TABLE comfyd_version"), target)
	require.ErrorIs(t, err, SchemaOlder)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = CopyDatabase(ctx, withLog(t), target)
	require.ErrorIs(t, err, CopyFailed)
	require.ErrorIs(t, err, context.Canceled)
	_, err = CopyDatabase(t.Context(), withLog(t), "/proc/self/fdinfo/copy.db")
	require.ErrorIs(t, err, CopyFailed)
}

func TestCheckDatabase(t *testing.T) {
	d := prepared(t)
	require.NoError(t, CheckDatabase(t.Context(), d.path))
	raw, err := os.ReadFile(d.path)
	require.NoError(t, err)
	clear(raw[4096*2 : len(raw)/2])
	require.NoError(t, os.WriteFile(d.path, raw, 0o600))
	require.ErrorIs(t, CheckDatabase(t.Context(), d.path), Corrupt)
	d = prepared(t)
	alter(t, d.path, "UPDATE comfyd_version SET schema = '0.12', digest = 'x'")
	require.ErrorIs(t, CheckDatabase(t.Context(), d.path), SchemaNewer)
}

// TestCopyUnderLoad copies the database of a server at work. A server on the copy knows all that was accepted before, in
// its lists, too, and carries on with what was open.
func TestCopyUnderLoad(t *testing.T) {
	o, _ := testOptions(t)
	o.SearchAttributes["TestList"] = enums.INDEXED_VALUE_TYPE_KEYWORD_LIST
	s := start(t, o)
	c := dial(t, s)
	marked := client.StartWorkflowOptions{TaskQueue: testQueue, TypedSearchAttributes: temporal.NewSearchAttributes(
		temporal.NewSearchAttributeKeyKeywordList("TestList").ValueSet([]string{"one", "two"}))}
	count := func(c client.Client) int64 {
		r, err := c.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: "TestList = 'two'"})
		require.NoError(t, err)
		return r.GetCount()
	}
	const accepted = 30
	for i := range accepted {
		marked.ID = fmt.Sprint("before-", i)
		_, err := c.ExecuteWorkflow(t.Context(), marked, stepsWorkflow, 1, time.Duration(0))
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return count(c) == accepted }, 10*time.Second, 10*time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	var started atomic.Int64
	var load sync.WaitGroup
	for n := range 4 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				o := client.StartWorkflowOptions{ID: fmt.Sprintf("load-%d-%d", n, i), TaskQueue: testQueue}
				if _, err := c.ExecuteWorkflow(ctx, o, stepsWorkflow, 1, time.Duration(0)); err == nil {
					started.Add(1)
				}
			}
		})
	}
	require.Eventually(t, func() bool { return started.Load() > 20 }, 10*time.Second, time.Millisecond)
	copied, _ := testOptions(t)
	copied.SearchAttributes = o.SearchAttributes
	target := filepath.Join(copied.DataDir, databaseFile)
	for during := int64(0); during == 0; { // a copy takes less time than some starts
		require.NoError(t, os.RemoveAll(target))
		began, before := time.Now(), started.Load()
		_, err := CopyDatabase(t.Context(), o.DataDir, target)
		require.NoError(t, err)
		during = started.Load() - before
		t.Logf("copied and checked in %s, while %d workflows were started", time.Since(began), during)
	}
	stop()
	load.Wait()
	require.NoError(t, s.Stop())

	c = dial(t, start(t, copied))
	require.GreaterOrEqual(t, count(c), int64(accepted), "its lists know them")
	startWorker(t, c)
	for i := range accepted {
		var steps int
		require.NoError(t, c.GetWorkflow(t.Context(), fmt.Sprint("before-", i), "").Get(t.Context(), &steps))
		require.Equal(t, 1, steps)
	}
}
