package main

import (
	"context"
	"encoding/json"
	"syscall"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

// atModal is comfyd on a fake Modal with the product's own app.
func atModal(t *testing.T) (*fakemodal.Server, *comfyd) {
	m := fakemodal.Product(t)
	vars := []string{"COMFYD_BACKEND=modal"}
	for k, v := range m.Env() {
		vars = append(vars, k+"="+v)
	}
	p := prepare(t, vars...)
	p.start()
	return m, p
}

// runs are the calls of prompts that Modal was given, and how often one was executed.
func runs(m *fakemodal.Server) (calls []fakemodal.Call, executed int) {
	for _, c := range m.Calls() {
		if c.Method == "run" {
			calls = append(calls, c)
			executed += len(c.Attempts)
		}
	}
	return calls, executed
}

// TestKilledInMidCall kills comfyd while a container at Modal works: the next start goes on with the same call (F3).
func TestKilledInMidCall(t *testing.T) {
	for name, s := range map[string]syscall.Signal{"kill -9": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			m, p := atModal(t)
			id := p.submit(slow(t, t.Name()))
			p.running(id)
			p.signal(s)
			killed := time.Now()
			_, _, err := p.get("/healthz")
			require.Error(t, err, "the fault has fired")
			p.start()
			status := p.finish(id)
			require.Equal(t, "COMPLETED", status["status"], "%v", status)
			require.EqualValues(t, 1, status["attempts"])
			calls, executed := runs(m)
			require.Len(t, calls, 1)
			require.Equal(t, 1, executed, "the GPU runs once")
			t.Logf("completed %s after the fault", time.Since(killed))
		})
	}
}

// TestKilledBeforeTheCallIDIsKnown kills comfyd when Modal has taken the call and nobody knows its ID: the next one asks
// the app's ledger. However that ends, the prompt runs once for each attempt that the client is told of.
func TestKilledBeforeTheCallIDIsKnown(t *testing.T) {
	m, p := atModal(t)
	p.finish(p.submit(noise(1))) // a container is up
	_, before := runs(m)
	held := m.HoldAnswer(1, "FunctionMap")
	id := p.submit(slow(t, t.Name()))
	ctx, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	require.NoError(t, held.Wait(ctx))
	p.kill()
	held.Clear()
	p.start()
	status := p.finish(id)
	require.Equal(t, "COMPLETED", status["status"], "%v", status)
	_, executed := runs(m)
	require.EqualValues(t, 1, executed-before, "one execution")
	require.EqualValues(t, 1, status["attempts"])
}

// TestBigResult: a result of fifty megabytes passes through comfyd to the store without being held in memory.
func TestBigResult(t *testing.T) {
	_, p := atModal(t)
	p.finish(p.submit(noise(1)))
	self, err := process.NewProcess(int32(p.cmd.Process.Pid))
	require.NoError(t, err)
	resident := func() float64 {
		m, err := self.MemoryInfo()
		require.NoError(t, err)
		return float64(m.RSS) / 1e6
	}
	before, most := resident(), 0.0
	id := p.submit(json.RawMessage(`{"1":{"class_type":"EmptyImage","inputs":{"width":5632,"height":5632,"batch_size":1,"color":1}},
		"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":7,"strength":1.0}},
		"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"big"}}}`))
	var body map[string]any
	require.Eventually(t, func() bool {
		most = max(most, resident())
		code, b, err := p.get("/status/" + id + "?output=url")
		body = b
		return err == nil && code == 200
	}, 3*time.Minute, 10*time.Millisecond)
	require.Equal(t, "COMPLETED", body["status"], "%v", body)
	size := body["output"].(map[string]any)["images"].([]any)[0].(map[string]any)["size_bytes"].(float64) / 1e6
	require.Greater(t, size, 50.0)
	t.Logf("a result of %.0f MB: comfyd grew from %.0f MB to %.0f MB at most", size, before, most)
	require.Less(t, most-before, 64.0)
}
