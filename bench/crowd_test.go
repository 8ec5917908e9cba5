package main

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// liar is a server that does to each job what its number in the order of submission says.
type liar struct {
	mu    sync.Mutex
	png   map[string][]byte
	polls map[string]int
	order []string
	turns int // submissions that are refused first
	does  func(n, polls int) (state, error)
}

func (l *liar) submit(_ *client, graph []byte) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turns > 0 {
		l.turns--
		return "", errors.New("busy")
	}
	id := fmt.Sprint(len(l.order))
	l.order, l.png[id] = append(l.order, id), graph
	return id, nil
}

func (l *liar) poll(_ *client, id string) (state, []byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.polls[id]++
	var n int
	_, err := fmt.Sscan(id, &n)
	if err != nil {
		return open, nil, err
	}
	is, err := l.does(n, l.polls[id])
	return is, l.png[id], err
}

func (l *liar) fetch(_ *client, _ string, answer []byte) (result, error) {
	return files([][]byte{answer}), nil
}

// lies runs jobs at a liar and returns the outcome and the faults.
func lies(t *testing.T, deadline time.Duration, jobs, refused int, does func(n, polls int) (state, error)) (outcome, []fault) {
	t.Helper()
	l := &liar{png: map[string][]byte{}, polls: map[string]int{}, turns: refused, does: does}
	b := &bench{scale: scale{Deadline: deadline}, out: &results{}, row: "burst"}
	var all []job
	for range jobs {
		j := tiny()
		j.graph = saved(t, 64, j.graph) // what comes back is what went in
		all = append(all, j)
	}
	o, _, err := b.crowd(t.Context(), &system{name: "liar", adapter: l}, all, func(f func() error) (costs, error) { return costs{}, f() })
	require.NoError(t, err)
	require.Len(t, o.submits, jobs)
	return o, b.out.Faults
}

func TestCrowdNotices(t *testing.T) {
	t.Parallel()
	o, faults := lies(t, time.Minute, 40, 3, func(n, polls int) (state, error) {
		if polls == 1 && n%2 == 0 {
			return open, nil
		}
		if polls == 1 && n == 1 {
			return open, errors.New("503")
		}
		return completed, nil
	})
	require.Empty(t, faults)
	require.Equal(t, 4, o.refused, "three submissions and a poll were made again")

	// Job 3 runs into this deadline; the others take two polls.
	o, faults = lies(t, 10*time.Second, 8, 0, func(n, polls int) (state, error) {
		switch {
		case n == 3:
			return open, nil
		case n == 5 && polls == 1:
			return ended, nil
		}
		return completed, nil
	})
	require.Equal(t, 1, o.lost)
	require.Equal(t, 1, o.falseEnds)
	require.Len(t, faults, 2)
	require.Contains(t, fmt.Sprint(faults), "lost: job 3: no end before the deadline")
	require.Contains(t, fmt.Sprint(faults), "1 of 8 jobs were told to have ended badly, and completed")
}

func TestCrowdSeesAnothersImage(t *testing.T) {
	t.Parallel()
	l := &liar{png: map[string][]byte{}, polls: map[string]int{}, does: func(int, int) (state, error) { return completed, nil }}
	b := &bench{scale: scale{Deadline: time.Minute}, out: &results{}, row: "burst"}
	first, second := tiny(), tiny()
	second.graph = saved(t, 64, first.graph)
	first.graph = bytes.Clone(second.graph)
	_, _, err := b.crowd(t.Context(), &system{name: "liar", adapter: l}, []job{first, second}, func(f func() error) (costs, error) { return costs{}, f() })
	require.NoError(t, err)
	require.Len(t, b.out.Faults, 1)
	require.Contains(t, b.out.Faults[0].What, "another job's")
}
