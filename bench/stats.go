package main

import (
	"math"
	"slices"
	"time"
)

// percentile is the smallest value that so many percent of all are not above.
func percentile(all []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	i := int(math.Ceil(float64(len(sorted)*percent)/100)) - 1
	return sorted[max(i, 0)]
}

// median of an even number is the mean of the two in the middle.
func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
