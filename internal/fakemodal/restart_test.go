package fakemodal_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakemodal"
)

func TestRestart(t *testing.T) {
	w := newWorld(t)
	sleep := w.method("sleep")
	done := w.spawn(w.method("big"), 50_000)
	w.state(done, fakemodal.Done)
	require.Equal(t, []any{true, true}, w.run(w.method("claim"), "job"))
	other := w.spawn(sleep, long)
	w.marked("start", 1)
	running := w.spawn(sleep, long, w.free) // the last to start: nothing slow is left before the stop
	w.marked("start", 2)
	queued := w.spawn(w.method("echo"), "later")
	canceled := w.spawn(sleep, long)
	require.NoError(t, canceled.Cancel(testContext(t), nil))

	w.Stop()
	_, err := running.Get(testContext(t), nil)
	require.Error(t, err)
	w.start()
	w.release()

	v, err := w.get(done)
	require.NoError(t, err)
	require.Len(t, v, 50_000, "a result is still there, also one in a blob")
	v, err = w.get(running)
	require.NoError(t, err)
	require.Equal(t, "slept", v)
	require.Equal(t, []string{"stopped", "success"}, outcomes(w.state(running, fakemodal.Done)), "what ran, runs again")
	v, err = w.get(queued)
	require.NoError(t, err)
	require.Equal(t, "later", v.(map[any]any)["value"])
	require.Equal(t, "terminated", w.state(canceled, fakemodal.Done).Outcome)
	require.Equal(t, []any{false, false}, w.run(w.method("claim"), "job"), "Dicts are still there")
	require.Equal(t, fakemodal.Running, w.state(other, fakemodal.Running).State)
	require.NotNil(t, w.Deployment("testapp"))
}
