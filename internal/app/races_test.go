package app_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDeleteRacesCancel: several clients cancel and delete one job at once, at any moment of its life. It is gone, and so is
// everything of it; another job with the same input keeps that.
func TestDeleteRacesCancel(t *testing.T) {
	d := onDouble(t, nil)
	kept := d.submit(withFile(t, "kept"))
	ids := make([]string, 12)
	var all sync.WaitGroup
	for i := range ids {
		ids[i] = d.submit(withFile(t, fmt.Sprint("race-", i)))
		for n := range 4 {
			all.Go(func() {
				<-time.After(time.Duration(i*n) * 5 * time.Millisecond) // the moments differ
				if n%2 == 0 {
					assert.Contains(t, []int{200, 202, 404}, d.do("POST", "/cancel/"+ids[i], nil).code)
				} else {
					code := http.StatusAccepted
					for code == http.StatusAccepted { // it has not ended in time: come again
						code = d.do("DELETE", "/jobs/"+ids[i], nil).code
					}
					assert.Contains(t, []int{204, 404}, code)
				}
			})
		}
	}
	all.Wait()
	for _, id := range ids {
		d.gone(id)
		require.Empty(t, d.stored("outputs/"+id))
	}
	require.Equal(t, "COMPLETED", d.finish(kept)["status"])
	require.Len(t, d.stored("inputs/"), 1)
}
