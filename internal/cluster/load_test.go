package cluster_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
