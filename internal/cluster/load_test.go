package cluster_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/cluster"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// noise is a job that no cache knows.
func noise(seed int) map[string]any {
	return map[string]any{"workflow": json.RawMessage(fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":0}},
		"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":%d,"strength":0.5}},
		"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"cluster"}}}`, seed))}
}

// steps is a job that takes 4 steps of the double's VAEDecodeTiled for each 256 pixels squared.
func steps(t *testing.T, size int) map[string]any {
	t.Helper()
	return map[string]any{"workflow": json.RawMessage(bytes.ReplaceAll(testdata(t, "progress_tiled.json"), []byte("512"), fmt.Append(nil, size)))}
}

// load is a stream of jobs that each of a number of users sends and follows, one after the other.
type load struct {
	*users
	stop    chan struct{}
	running sync.WaitGroup
	seed    atomic.Int64
}

func (u *users) load(atOnce int, job func(n int) map[string]any) *load {
	l := &load{users: u, stop: make(chan struct{})}
	name := fmt.Sprint(u.t.Name(), time.Now().UnixNano())
	for range atOnce {
		l.running.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				n := int(l.seed.Add(1))
				if r := l.submit(job(n), fmt.Sprintf("%s-%d", name, n)); r != nil {
					l.follow(r)
				}
			}
		})
	}
	return l
}

// end stops the stream when its jobs have ended.
func (l *load) end() {
	close(l.stop)
	l.running.Wait()
}

// fair: a tenant with many jobs waiting does not starve one with a single job, and an urgent job is next, by the settings of
// deploy/temporal-dynamicconfig.yaml.
func fair(t *testing.T, c *cluster.Cluster, gpus []*fakecomfy.Server) {
	many, one := newUsers(t, c), newUsers(t, c)
	one.key = c.OtherKey
	var gates []*fakecomfy.Gate
	for _, g := range gpus {
		gates = append(gates, g.Hold("ImageAddNoise"))
	}
	waits := func(u *users, r *record) {
		await(t, "it has its place", func() bool {
			a, _ := u.call("GET", "/status/"+r.id, nil, "")
			return a.body["phase"] == "queued" || a.body["phase"] == "running"
		})
	}
	var all []*record
	for i := range 60 {
		all = append(all, many.submit(noise(3e8+i), ""))
	}
	urgent := noise(3e8 + 100)
	urgent["priority"] = 1
	all = append(all, many.submit(urgent, ""))
	other := one.submit(noise(3e8+200), "")
	require.Empty(t, append(many.wrong, one.wrong...))
	for _, r := range all {
		waits(many, r)
	}
	waits(one, other)
	given := make([]int, len(gpus)) // one runs in each ComfyUI, and some wait there
	for i, g := range gpus {
		given[i] = len(g.Posted())
	}
	for _, gate := range gates {
		gate.Open()
	}
	many.follow(all[60])
	one.follow(other)
	for _, r := range all[:60] {
		many.follow(r)
	}
	turn := func(seed int) int { // which one it was after those, on its ComfyUI
		for i, g := range gpus {
			for n, raw := range g.Posted() {
				if bytes.Contains(raw, fmt.Append(nil, seed)) {
					return n - given[i] + 1
				}
			}
		}
		return 0
	}
	t.Logf("of 60 jobs of one tenant %v were at the ComfyUIs before; then came the urgent one as number %d, and the other tenant's as number %d", given, turn(3e8+100), turn(3e8+200))
	require.LessOrEqual(t, turn(3e8+100), 2, "an urgent job is next")
	require.LessOrEqual(t, turn(3e8+200), 3, "the other tenant's job is among the next")
	many.check(-1)
	one.check(-1)
}
