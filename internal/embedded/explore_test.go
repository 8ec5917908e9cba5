//go:build !noembedded

package embedded

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/comfyd/comfyd/internal/logs"
	"github.com/shirou/gopsutil/v4/process"
	"github.com/stretchr/testify/require"
)

func TestExplore(t *testing.T) {
	o, r := testOptions(t)
	o.Log = logs.New(logs.Options{Level: "debug", Format: logs.JSON, Out: r})
	o.UIListen = "127.0.0.1:0"
	at := time.Now()
	s, err := Start(t.Context(), o)
	require.NoError(t, err)
	t.Log("ready", time.Since(at), s.Address(), s.UIAddress())
	p, _ := process.NewProcess(int32(os.Getpid()))
	c := dial(t, s)
	w := startWorker(t, c)
	for i := range 5 {
		require.NoError(t, run(t.Context(), c, fmt.Sprint("warm", i), 3, 0))
	}
	var all []time.Duration
	for i := range 60 {
		at := time.Now()
		require.NoError(t, run(t.Context(), c, fmt.Sprint("one", i), 3, 0))
		all = append(all, time.Since(at))
	}
	slices.Sort(all)
	t.Log("p50", all[30], "p90", all[54], "max", all[59])
	var wg sync.WaitGroup
	next := make(chan int, 200)
	for i := range 200 { next <- i }
	close(next)
	at = time.Now()
	for range 16 {
		wg.Go(func() {
			for i := range next {
				if err := run(t.Context(), c, fmt.Sprint("many", i), 3, 0); err != nil { t.Error(err) }
			}
		})
	}
	wg.Wait()
	t.Log("200 at 16:", time.Since(at))
	time.Sleep(3*time.Second)
	runtime.GC()
	m, _ := p.MemoryInfo()
	t.Log("goroutines", runtime.NumGoroutine(), "rss MB", m.RSS>>20)
	c0, _ := p.Times()
	time.Sleep(20*time.Second)
	c1, _ := p.Times()
	t.Logf("idle cpu %.2f%%", (c1.User+c1.System-c0.User-c0.System)/20*100)
	m, _ = p.MemoryInfo()
	t.Log("goroutines", runtime.NumGoroutine(), "rss MB", m.RSS>>20)
	w.Stop()
	c.Close()
	at = time.Now()
	require.NoError(t, s.Stop())
	t.Log("stop", time.Since(at), "goroutines", runtime.NumGoroutine())
	for _, l := range r.lines() {
		if !strings.Contains(l, `"level":"debug"`) { t.Log(l) }
	}
	os.WriteFile("/tmp/explore.log", []byte(strings.Join(r.lines(), "\n")), 0o600)
	des, _ := os.ReadDir(o.DataDir)
	for _, d := range des { i, _ := d.Info(); t.Log(d.Name(), i.Size()) }
}
