//go:build !noembedded

package embedded

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkJob is the time and the CPU of a workflow whose activities do nothing, from its start to its result in hand: what
// the server and the SDK add to every job, whatever we do. A job of comfyd has one activity on a warm backend. Run it on a quiet machine:
//
//	go test -run '^$' -bench Job -benchtime 400x ./internal/embedded
func BenchmarkJob(b *testing.B) {
	for _, activities := range []int{1, 3} {
		for _, clients := range []int{1, 16} {
			b.Run(fmt.Sprintf("activities=%d/clients=%d", activities, clients), func(b *testing.B) { benchmarkJob(b, activities, clients) })
		}
	}
}

func benchmarkJob(b *testing.B, activities, clients int) {
	o, _ := testOptions(b)
	c := dial(b, start(b, o))
	startWorker(b, c)
	for i := range 5 {
		require.NoError(b, run(b.Context(), c, fmt.Sprint("warm-", i), activities, 0))
	}
	var (
		next  = make(chan int)
		group sync.WaitGroup
		mu    sync.Mutex
		took  []time.Duration
	)
	used := cpuTime(b)
	b.ResetTimer()
	for range clients {
		group.Go(func() {
			for i := range next {
				before := time.Now()
				if err := run(b.Context(), c, fmt.Sprint("job-", i), activities, 0); err != nil {
					b.Error(err)
				}
				mu.Lock()
				took = append(took, time.Since(before))
				mu.Unlock()
			}
		})
	}
	for i := range b.N {
		next <- i
	}
	close(next)
	group.Wait()
	b.StopTimer()
	used = cpuTime(b) - used
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
	b.ReportMetric(float64(used.Microseconds())/1000/float64(b.N), "cpu-ms/job")
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
