package cluster_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/cluster"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// restored takes a backup under load, loses everything, and restores it on an empty machine: ended jobs are what they were,
// open ones go on, and what came after the backup is unknown.
func restored(t *testing.T, c *cluster.Cluster, gpus []*fakecomfy.Server) {
	u := newUsers(t, c)
	runs := func() int { return gpus[0].TotalRuns() + gpus[1].TotalRuns() }
	given := func() int { return len(gpus[0].Posted()) + len(gpus[1].Posted()) }
	before := runs()
	old := u.submit(noise(1e8), "before the backup")
	was := u.follow(old)
	var open []*record
	posted := given()
	for i := range 4 { // some seconds of work for two ComfyUIs
		open = append(open, u.submit(steps(t, 3072+i), ""))
	}
	require.Empty(t, u.wrong)
	await(t, "ComfyUI has them", func() bool { return given() == posted+len(open) })

	dir, began := t.TempDir(), time.Now()
	c.Backup(dir)
	took := time.Since(began)
	atWork := 0
	for _, r := range open {
		if a, err := u.call("GET", "/status/"+r.id, nil, ""); err == nil && a.code == 202 {
			atWork++
		}
	}
	require.Positive(t, atWork, "jobs were open when the backup was taken")
	body, err := json.Marshal(noise(2e8))
	require.NoError(t, err)
	later, ok := u.insist("POST", "/submit_workflow", body, "after the backup")
	require.True(t, ok)
	require.Equal(t, 202, later.code)

	ended := 0 // ComfyUI was told to forget these, and the backup does not know that they have ended
	for _, r := range open {
		if a, err := u.call("GET", "/status/"+r.id, nil, ""); err == nil && a.code == 200 {
			ended++
		}
	}
	c.Lose()
	back := time.Now()
	c.Restore(dir)
	up := time.Since(back)

	again := u.follow(old)
	require.Equal(t, was, again, "the same answer, the same bytes")
	require.Equal(t, old.id, u.submit(noise(1e8), "before the backup").id, "its key is known")
	gone, ok := u.insist("GET", "/status/"+later.body["id"].(string), nil, "")
	require.True(t, ok)
	require.Equal(t, 404, gone.code, "what came after the backup is unknown")
	u.follow(u.submit(noise(2e8), "after the backup")) // and its client sends it again
	for _, r := range open {
		u.follow(r)
	}
	require.Empty(t, u.wrong)
	// Two, one on each ComfyUI, may have ended since they were asked for. The later one may have run before, for nobody.
	require.LessOrEqual(t, runs()-before, len(open)+ended+2+3, "what ComfyUI had at the backup runs once more at most, and only where it had ended")
	t.Logf("RECOVERY production shape lost, restored on an empty machine: backup of both databases and the bucket in %.1f s, ready %.1f s after the restore began, the last of %d jobs that were open ended %.1f s after it",
		took.Seconds(), up.Seconds(), atWork, time.Since(back).Seconds())
}
