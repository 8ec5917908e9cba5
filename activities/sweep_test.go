package activities_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"

	"github.com/comfyd/comfyd/activities"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/removal"
	"github.com/comfyd/comfyd/store"
)

func TestSweep(t *testing.T) {
	s := newSweeping(t)
	s.ledger.runs["known"] = "r"
	s.ledger.users = []string{"ComfyInputs = '2d711642b726' AND ComfyTenant = 'busy'"}
	s.named["catalogs/"+hash] = true
	kept := []string{
		"catalogs/" + hash,      // a worker names it
		"catalogs/young",        //
		"graphs/busy/" + hash,   // a job names it
		"inputs/alice/young",    // a job of a day and more may have it
		"other/very-old",        // nobody knows what it is
		"outputs/fresh/" + hash, // a job that runs
		"outputs/known/" + hash, // Temporal has it still
		"outputs/~ab/" + hash,   // a child that cannot be asked about
		"removals/x/run",        // just written
		"workers/url/host.json", // the directory's affair
	}
	gone := []string{
		"catalogs/old", "graphs/alice/" + hash, "inputs/alice/" + hash, "outputs/forgotten/a", "outputs/forgotten/b", "outputs/~cd/" + hash,
	}
	ages := map[string]time.Duration{
		"catalogs/young": 23 * time.Hour, "catalogs/old": 25 * time.Hour, "inputs/alice/young": 8 * day, "outputs/fresh/" + hash: 7*day - time.Minute,
		"outputs/~ab/" + hash: 8 * day, "removals/x/run": time.Minute,
	}
	for _, key := range slices.Concat(kept, gone) {
		age, ok := ages[key]
		if !ok {
			age = 100 * day
		}
		s.put(key, age)
	}
	swept, err := s.sweep(s.store)
	require.NoError(t, err)
	require.Equal(t, activities.Swept{Outputs: 3, Inputs: 1, Graphs: 1, Catalogs: 1, Bytes: 6}, swept)
	require.Equal(t, kept, s.has())
	require.Equal(t, []string{"forgotten", "known"}, s.ledger.asked, "once about each job, and about no young one")
	swept, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Zero(t, swept, "two of them, or one after the other, do no harm")
}

// TestSweepTellsReceivers of jobs that Temporal itself has ended, unless they were deleted; where that fails, it sweeps all the same.
func TestSweepTellsReceivers(t *testing.T) {
	s := newSweeping(t)
	since := func(at time.Time) []string {
		return []string{"ExecutionStatus IN ('Terminated', 'TimedOut') AND CloseTime > '" + at.Add(-10*time.Minute).UTC().Format(time.RFC3339)}
	}
	s.ledger.users = since(s.now.Add(-7*day + 10*time.Minute)) // what Temporal has forgotten cannot be told
	s.tellErr = errors.New("not now")
	s.put(comfy.WebhookNotes+"alice/"+hash, 8*day)
	s.put(comfy.WebhookNotes+"alice/young", 6*day)
	swept, err := s.sweep(s.store)
	require.NoError(t, err)
	require.Zero(t, swept)
	require.Equal(t, []string{"user/run"}, s.told)
	require.Len(t, s.notes.AllEntries(), 1)
	require.Zero(t, s.toldUntil, "the next sweep has the same to tell")
	require.Equal(t, []string{comfy.WebhookNotes + "alice/young"}, s.has(), "receivers that want no more are asked again after a week")

	s.tellErr = nil
	_, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Len(t, s.told, 2)
	require.True(t, s.now.Equal(s.toldUntil))
	_, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Len(t, s.told, 2, "it goes on from there")
	s.ledger.users = since(s.now)
	_, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Len(t, s.told, 3)

	s.put("removals/user/run", time.Minute)
	_, err = s.sweep(s.store)
	require.NoError(t, err)
	require.Len(t, s.told, 3)
}

// TestSweepInDoubt: what Temporal or the store does not say for certain removes nothing.
func TestSweepInDoubt(t *testing.T) {
	for name, doubt := range map[string]error{
		"Temporal is away":  serviceerror.NewUnavailable("away"),
		"no such namespace": serviceerror.NewNamespaceNotFound("default"),
		"no right to ask":   serviceerror.NewPermissionDenied("no", ""),
		"no answer in time": context.DeadlineExceeded,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSweeping(t)
			for _, key := range []string{"catalogs/old", "graphs/a/" + hash, "inputs/a/" + hash, "outputs/forgotten/a"} {
				s.put(key, 100*day)
				s.ledger.err = doubt
				before := s.has()
				_, err := s.sweep(s.store)
				require.Error(t, err, key)
				require.Equal(t, before, s.has())
				require.NoError(t, s.store.Delete(t.Context(), key))
			}
		})
	}
	t.Run("the store breaks", func(t *testing.T) {
		s := newSweeping(t)
		s.put("outputs/forgotten/a", 100*day)
		_, err := s.sweep(brokenStat{s.store})
		require.ErrorContains(t, err, "broken")
		require.Len(t, s.has(), 1)
	})
	t.Run("another namespace's store", func(t *testing.T) {
		s := newSweeping(t)
		s.put("outputs/forgotten/a", 100*day)
		s.ledger.namespace = "n2"
		swept, err := s.sweep(s.store)
		require.NoError(t, err)
		require.Equal(t, activities.Swept{Skipped: true}, swept)
		require.Len(t, s.has(), 1)
		require.Contains(t, s.notes.LastEntry().Message, "remove owner/namespace from the store")
	})
	t.Run("an open job that does not say what it uses", func(t *testing.T) {
		s := newSweeping(t)
		s.put("inputs/a/"+hash, 100*day)
		s.ledger.users = []string{"ComfyInputs IS NULL AND CloseTime IS NULL"}
		_, err := s.sweep(s.store)
		require.NoError(t, err)
		require.Len(t, s.has(), 1)
	})
	t.Run("nobody's store", func(t *testing.T) {
		s := newSweeping(t)
		require.NoError(t, s.store.Delete(t.Context(), removal.OwnerKey))
		s.put("outputs/forgotten/a", 100*day)
		swept, err := s.sweep(s.store)
		require.NoError(t, err)
		require.Equal(t, activities.Swept{Skipped: true}, swept, "another may have taken it in the same moment")
		require.Len(t, s.has(), 1)
		swept, err = s.sweep(s.store)
		require.NoError(t, err)
		require.Equal(t, 1, swept.Outputs)
	})
	t.Run("another namespace's removal", func(t *testing.T) {
		s := newSweeping(t)
		r := &removal.Remover{Temporal: s.ledger, Namespace: "theirs", NamespaceID: "n2", Store: s.store}
		require.NoError(t, r.Remove(t.Context(), removal.Job{ID: "job", RunID: "run-1", Tenant: "alice", Started: s.now}))
		s.put("outputs/job/late", time.Minute)
		before := s.has()
		s.now = time.Now().Add(time.Hour)
		swept, err := s.sweep(s.store)
		require.NoError(t, err)
		require.Zero(t, swept)
		require.Equal(t, before, s.has())
	})
	t.Run("stored anew meanwhile", func(t *testing.T) {
		s := newSweeping(t)
		s.put("outputs/forgotten/a", 100*day)
		_, err := s.sweep(renewing{s.store})
		require.NoError(t, err)
		require.Len(t, s.has(), 1)
	})
}

type brokenStat struct{ *store.Store }

func (brokenStat) Stat(context.Context, string) (comfy.Blob, error) {
	return comfy.Blob{}, errors.New("broken")
}

// takenOver sees a new job take the ID after the first removal.
type takenOver struct {
	*store.Store
	taken func()
}

func (o takenOver) Delete(ctx context.Context, key string) error {
	defer o.taken()
	return o.Store.Delete(ctx, key)
}

// renewing stores an output anew right before a look at it.
type renewing struct{ *store.Store }

func (r renewing) Stat(ctx context.Context, key string) (comfy.Blob, error) {
	if err := r.Touch(ctx, key); err != nil {
		return comfy.Blob{}, err
	}
	return r.Store.Stat(ctx, key)
}

// TestSweepGoesOn: an attempt begins where the last one stopped.
func TestSweepGoesOn(t *testing.T) {
	s := newSweeping(t)
	for _, key := range []string{"inputs/a/" + hash, "outputs/a/1", "outputs/b/1", "outputs/c/1"} {
		s.put(key, 100*day)
	}
	swept, err := s.sweep(s.store, map[string]any{"after": "outputs/b/1", "swept": map[string]any{"outputs": 4}})
	require.NoError(t, err)
	require.Equal(t, 5, swept.Outputs)
	require.Equal(t, []string{"inputs/a/" + hash, "outputs/a/1", "outputs/b/1"}, s.has())
	require.Equal(t, []string{"c"}, s.ledger.asked)
}
