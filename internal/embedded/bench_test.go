//go:build !noembedded

package embedded

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkJob is the time of a workflow of three activities that do nothing, from its start to its result in hand: what
// the server adds to every job. Run it on a quiet machine:
//
//	go test -run '^$' -bench Job -benchtime 200x ./internal/embedded
func BenchmarkJob(b *testing.B) {
	for _, clients := range []int{1, 16} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			o, _ := testOptions(b)
			c := dial(b, start(b, o))
			startWorker(b, c)
			for i := range 5 {
				require.NoError(b, run(b.Context(), c, fmt.Sprint("warm-", i), 3, 0))
			}
			var (
				next  = make(chan int)
				group sync.WaitGroup
				mu    sync.Mutex
				took  []time.Duration
			)
			b.ResetTimer()
			for range clients {
				group.Go(func() {
					for i := range next {
						before := time.Now()
						if err := run(b.Context(), c, fmt.Sprint("job-", i), 3, 0); err != nil {
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
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
		})
	}
}
