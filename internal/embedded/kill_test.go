//go:build !noembedded

package embedded

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
)

// childFolder is set in the process that the kill tests start and kill: this test binary again, as a server under load.
const childFolder = "COMFYD_EMBEDDED_TEST_CHILD"

func TestMain(m *testing.M) {
	if folder := os.Getenv(childFolder); folder != "" {
		if err := child(folder); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child starts a server and a worker, and then workflows without end. It prints the id of each that the server has
// accepted.
func child(folder string) error {
	ctx := context.Background()
	silent := logrus.New()
	silent.Out = io.Discard
	fmt.Println("starting")
	s, err := Start(ctx, Options{DataDir: folder, Listen: "127.0.0.1:0", Retention: 48 * time.Hour, Log: silent})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	c, err := client.DialContext(ctx, client.Options{HostPort: s.Address()})
	if err != nil {
		return err
	}
	w := worker.New(c, testQueue, worker.Options{})
	w.RegisterWorkflow(stepsWorkflow)
	w.RegisterActivity(stepActivity)
	if err := w.Start(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		id := fmt.Sprintf("job-%d-%d", os.Getpid(), i)
		_, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: testQueue}, stepsWorkflow, 3, 10*time.Millisecond)
		if err != nil {
			return err
		}
		fmt.Println("accepted", id)
	}
}

// killed runs a child on a folder, kills it some time after it printed a line that starts with after, and returns the
// ids that were accepted by then.
func killed(t *testing.T, folder, after string, wait time.Duration) (accepted []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childFolder+"="+folder)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	armed := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		require.NotContains(t, line, "failed")
		if id, ok := strings.CutPrefix(line, "accepted "); ok {
			accepted = append(accepted, id)
		}
		if !armed && strings.HasPrefix(line, after) {
			armed = true
			time.AfterFunc(wait, func() { _ = cmd.Process.Kill() })
		}
	}
	require.Error(t, cmd.Wait())
	require.Equal(t, "signal: killed", cmd.ProcessState.String(), "the fault has to fire")
	return accepted
}

func TestKillUnderLoad(t *testing.T) {
	o, log := testOptions(t)
	var accepted []string
	for _, wait := range []time.Duration{time.Second, 1300 * time.Millisecond, 700 * time.Millisecond} {
		accepted = append(accepted, killed(t, o.DataDir, "accepted", wait)...)
	}
	require.NotEmpty(t, accepted)

	before := time.Now()
	s := start(t, o)
	t.Logf("ready in %s after 3 kills, %d workflows accepted", time.Since(before), len(accepted))
	c := dial(t, s)
	startWorker(t, c)
	for _, id := range accepted {
		var steps int
		require.NoError(t, c.GetWorkflow(t.Context(), id, "").Get(t.Context(), &steps), id)
		require.Equal(t, 3, steps)
	}
	t.Log("all at their end after", time.Since(before))
	require.Equal(t, []string{""}, log.lines(), "nothing to warn about")
}

func TestKillDuringFirstStart(t *testing.T) {
	created := 0
	const kills = 12
	for i := range kills {
		o, _ := testOptions(t)
		after, wait := "starting", time.Duration(i)*20*time.Millisecond
		if i == kills-1 { // however slow the machine is
			after, wait = "ready", 0
		}
		killed(t, o.DataDir, after, wait)
		if size, _ := fileSize(filepath.Join(o.DataDir, databaseFile)); size > 0 {
			created++
		}
		s, err := Start(t.Context(), o)
		require.NoError(t, err, "killed %s after %q", wait, after)
		require.NoError(t, s.Stop())
	}
	t.Logf("in %d of %d the database was there when the process died", created, kills)
	require.Greater(t, created, 0, "some kills have to come after the schema")
	require.Less(t, created, kills, "some kills have to come before or in it")
}
