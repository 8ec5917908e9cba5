package store_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func BenchmarkPut(b *testing.B) {
	for kind, open := range map[string]func(testing.TB) world{"folder": newFolder, "s3": newBucket} {
		for _, size := range []int{1 << 10, 50 << 20} {
			b.Run(fmt.Sprintf("%s/%d", kind, size), func(b *testing.B) {
				w := open(b)
				data := make([]byte, size)
				rand.Read(data)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				var took []time.Duration
				for b.Loop() {
					rand.Read(data[:16])
					start := time.Now()
					_, err := w.PutHashed(b.Context(), fmt.Sprintf("outputs/%d/", len(took)), bytes.NewReader(data))
					require.NoError(b, err)
					took = append(took, time.Since(start))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			})
		}
	}
}

func BenchmarkRead50MB(b *testing.B) {
	w := newFolder(b)
	put(b, w.Store, "k", strings.Repeat("x", 50<<20))
	b.SetBytes(50 << 20)
	for b.Loop() {
		r, err := w.Open(b.Context(), "k", 0, -1)
		require.NoError(b, err)
		_, err = io.Copy(io.Discard, r)
		require.NoError(b, err)
		r.Close()
	}
}
