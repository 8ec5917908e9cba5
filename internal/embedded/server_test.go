//go:build !noembedded

package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	require.NoError(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return r.StatusCode, string(b)
}

func TestStartRunStop(t *testing.T) {
	o, log := testOptions(t)
	o.UIListen = "127.0.0.1:0"
	before := time.Now()
	s := start(t, o)
	t.Log("ready in", time.Since(before))
	c := dial(t, s)
	w := startWorker(t, c)
	require.NoError(t, run(t.Context(), c, "job-1", 3, 0))

	code, page := get(t, "http://"+s.UIAddress()+"/namespaces/default/workflows")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, page, "<!doctype html>")
	script := regexp.MustCompile(`/_app/[^"]+\.js`).FindString(page)
	require.NotEmpty(t, script)
	code, _ = get(t, "http://"+s.UIAddress()+script)
	require.Equal(t, http.StatusOK, code, script)
	code, body := get(t, "http://"+s.UIAddress()+"/api/v1/namespaces/default/workflows/job-1")
	require.Equal(t, http.StatusOK, code, body)
	require.Contains(t, body, "WORKFLOW_EXECUTION_STATUS_COMPLETED")

	w.Stop()
	c.Close()
	before = time.Now()
	require.NoError(t, s.Stop())
	require.NoError(t, s.Stop(), "a second time")
	require.Less(t, time.Since(before), 10*time.Second)
	t.Log("stopped in", time.Since(before))
	_, err := net.Dial("tcp", s.Address())
	require.Error(t, err)
	_, err = net.Dial("tcp", s.UIAddress())
	require.Error(t, err)

	wal, err := fileSize(filepath.Join(o.DataDir, "temporal.db-wal"))
	require.NoError(t, err)
	require.Zero(t, wal, "after a stop, temporal.db alone is the backup")
	require.Equal(t, []string{""}, log.lines(), "a healthy life writes nothing at level warn")
}

func TestRestart(t *testing.T) {
	o, _ := testOptions(t)
	attribute := func(name string) temporal.SearchAttributes {
		return temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword(name).ValueSet("x"))
	}
	startWith := func(c client.Client, id, name string) error {
		_, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			ID: id, TaskQueue: testQueue, TypedSearchAttributes: attribute(name),
		}, stepsWorkflow, 1, time.Duration(0))
		return err
	}
	s := start(t, o)
	c := dial(t, s)
	require.NoError(t, startWith(c, "before", "TestName"))
	c.Close()
	require.NoError(t, s.Stop())

	o.SearchAttributes["TestLater"] = enums.INDEXED_VALUE_TYPE_KEYWORD
	o.SearchAttributes["TestList"] = enums.INDEXED_VALUE_TYPE_KEYWORD_LIST
	o.Retention = 72 * time.Hour
	s = start(t, o)
	c = dial(t, s)
	require.NoError(t, startWith(c, "after", "TestLater"), "usable at once in a folder that existed without it")
	n, err := c.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: "default"})
	require.NoError(t, err)
	require.Equal(t, 72*time.Hour, n.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration())

	startWorker(t, c)
	for _, id := range []string{"before", "after"} {
		require.NoError(t, c.GetWorkflow(t.Context(), id, "").Get(t.Context(), nil))
	}
	require.Eventually(t, func() bool {
		for _, query := range []string{"TestName = 'x'", "TestLater = 'x'"} {
			r, err := c.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: query})
			if err != nil || r.GetCount() != 1 {
				return false
			}
		}
		return true
	}, 10*time.Second, 50*time.Millisecond)
}

func TestUnknownWorkflow(t *testing.T) {
	o, _ := testOptions(t)
	_, err := dial(t, start(t, o)).DescribeWorkflow(t.Context(), "none", "")
	require.ErrorAs(t, err, new(*serviceerror.NotFound))
}

// Stop does not hang or shout while clients are still there and a workflow runs.
func TestStopUnderLoad(t *testing.T) {
	o, log := testOptions(t)
	o.UIListen = "127.0.0.1:0"
	s := start(t, o)
	c := dial(t, s)
	startWorker(t, c)
	ctx, done := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() { _ = run(ctx, c, fmt.Sprint("job-", i), 50, 20*time.Millisecond) })
	}
	require.Eventually(t, func() bool {
		_, err := c.DescribeWorkflow(t.Context(), "job-7", "")
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	before := time.Now()
	require.NoError(t, s.Stop())
	require.Less(t, time.Since(before), 15*time.Second)
	done()
	clients.Wait()
	require.Equal(t, []string{""}, log.lines())
}

func TestServersSideBySide(t *testing.T) {
	var group sync.WaitGroup
	servers := make([]*Server, 3)
	for i := range servers {
		o, _ := testOptions(t)
		o.UIListen = "127.0.0.1:0"
		group.Go(func() {
			var err error
			servers[i], err = Start(t.Context(), o)
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for i, s := range servers {
		require.NotNil(t, s)
		t.Cleanup(func() { require.NoError(t, s.Stop()) })
		c := dial(t, s)
		startWorker(t, c)
		require.NoError(t, run(t.Context(), c, fmt.Sprint("job-", i), 1, 0))
		_, err := c.DescribeWorkflow(t.Context(), fmt.Sprint("job-", (i+1)%len(servers)), "")
		require.ErrorAs(t, err, new(*serviceerror.NotFound), "they do not share")
	}
}

func TestOddFolderName(t *testing.T) {
	o, _ := testOptions(t)
	o.DataDir = filepath.Join(o.DataDir, "a b?mode=memory#c%20d&é", "deep")
	start(t, o)
	for _, name := range []string{"temporal.db", "temporal.lock"} {
		_, err := os.Stat(filepath.Join(o.DataDir, name))
		require.NoError(t, err)
	}
}

func TestFailedWhileRunning(t *testing.T) {
	o, log := testOptions(t)
	s := start(t, o)
	go s.log.Fatal("shard is gone")
	select {
	case err := <-s.Failed():
		require.ErrorIs(t, err, Crashed)
		require.ErrorContains(t, err, "shard is gone")
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was delivered")
	}
	var line struct{ Level, Msg, Component string }
	require.NoError(t, json.Unmarshal([]byte(log.lines()[0]), &line))
	require.Equal(t, "error shard is gone temporal", strings.Join([]string{line.Level, line.Msg, line.Component}, " "))
}

func TestCanceledStart(t *testing.T) {
	o, _ := testOptions(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Start(ctx, o)
	require.ErrorIs(t, err, StartFailed)
	start(t, o) // the folder is free again
}
