package activities_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/removal"
)

// TestSweepFinishesRemovals: a deletion that a crash has interrupted is carried out, and its note goes when Temporal has
// forgotten the job.
func TestSweepFinishesRemovals(t *testing.T) {
	s := newSweeping(t)
	r := &removal.Remover{Temporal: s.ledger, Namespace: "default", Store: s.store}
	in := "inputs/alice/" + hash
	note := func(id string) string { return "removals/" + id + "/run-1" }
	begun := func(id string) {
		s.ledger.err = errors.New("crash")
		err := r.Remove(t.Context(), removal.Job{ID: id, RunID: "run-1", Tenant: "alice", Started: s.now, Inputs: []string{in, "inputs/bob/" + hash}})
		require.ErrorIs(t, err, removal.ErrUnfinished)
		s.ledger.err = nil
		s.put(in, time.Hour)
		s.put("outputs/"+id+"/late", time.Minute)
	}
	s.put("inputs/bob/"+hash, time.Hour)
	begun("job")
	deleted, err := r.Deleted(t.Context(), "job", "run-1")
	require.NoError(t, err)
	require.True(t, deleted)
	again, err := r.Deleted(t.Context(), "job", "run-2")
	require.NoError(t, err)
	require.False(t, again, "a new job of the same ID")

	s.ledger.runs["job"] = "run-1"
	s.now = time.Now().Add(9 * time.Minute)
	_, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Contains(t, s.has(), in, "whoever began may be at work")

	s.now = time.Now().Add(11 * time.Minute)
	swept, err := s.sweep(s.store)
	require.NoError(t, err)
	require.Zero(t, swept.Removals)
	require.Equal(t, []string{"inputs/bob/" + hash, note("job")}, s.has(), "another tenant's file is none of the job's")
	require.Equal(t, "run-1", s.ledger.deleted[len(s.ledger.deleted)-1])
	require.LessOrEqual(t, slices.Max(s.ledger.limits), removal.CallTimeout, "a hung call holds up no sweep for hours")

	delete(s.ledger.runs, "job")
	s.put("outputs/job/straggler", time.Minute)
	swept, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Equal(t, 1, swept.Removals)
	require.Equal(t, []string{"inputs/bob/" + hash}, s.has())

	// Where a new job has the ID, the outputs are its own.
	begun("reused")
	s.ledger.runs["reused"] = "run-2"
	s.now = time.Now().Add(22 * time.Minute)
	swept, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Equal(t, 1, swept.Removals)
	require.Equal(t, []string{"inputs/bob/" + hash, "outputs/reused/late"}, s.has())

	// So are those that it stores while the old ones are being removed.
	s.ledger.runs["taken"] = "run-1"
	s.put("outputs/taken/1", time.Minute)
	s.put("outputs/taken/2", time.Minute)
	taking := &removal.Remover{Temporal: s.ledger, Namespace: "default", Store: takenOver{s.store, func() { s.ledger.runs["taken"] = "run-2" }}}
	require.NoError(t, taking.Remove(t.Context(), removal.Job{ID: "taken", RunID: "run-1", Tenant: "alice", Started: s.now}))
	require.NotContains(t, s.has(), "outputs/taken/1")
	require.Contains(t, s.has(), "outputs/taken/2")
	require.NoError(t, s.store.Delete(t.Context(), note("taken")))

	// One that cannot be read does not keep the others.
	s.put("removals/a/b", time.Hour)
	begun("last")
	s.now = time.Now().Add(33 * time.Minute)
	s.put("outputs/forgotten/a", 100*day)
	swept, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Equal(t, 1, swept.Outputs, "nor the rest of the sweep")
	said := s.notes.AllEntries()
	unfinished := said[slices.IndexFunc(said, func(e *logrus.Entry) bool { return e.Level == logrus.WarnLevel })]
	require.ErrorContains(t, unfinished.Data[logrus.ErrorKey].(error), "removals/a/b cannot be read")
	require.NotContains(t, s.has(), note("last"))
}
