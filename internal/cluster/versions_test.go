package cluster_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/internal/cluster"
)

// versions runs `comfyd temporal versions ...`.
func (s *site) versions(args ...string) string {
	s.t.Helper()
	said, err := s.Try(s.t.Context(), "worker-1", append([]string{"temporal", "versions"}, args...))
	require.NoError(s.t, err, said)
	return said
}

// sees waits until the versions are told to be so: what Temporal lists is a moment behind.
func (s *site) sees(pattern string) {
	s.t.Helper()
	said, re := "", regexp.MustCompile(pattern)
	defer func() {
		if s.t.Failed() {
			s.t.Log(said)
		}
	}()
	await(s.t, pattern, func() bool {
		said = s.versions()
		return re.MatchString(said)
	})
}

// build is the version that a job keeps to; "" before it has begun.
func (s *site) build(r *record) string {
	s.t.Helper()
	v := s.describe(r).GetWorkflowExecutionInfo().GetVersioningInfo()
	if b := v.GetVersioningOverride().GetPinned().GetVersion().GetBuildId(); b != "" {
		return b
	}
	if b := v.GetDeploymentVersion().GetBuildId(); b != "" {
		require.Equal(s.t, enums.VERSIONING_BEHAVIOR_PINNED, v.GetBehavior())
		return b
	}
	return ""
}

// held sends a job that stays in ComfyUI until the gate of the test is opened, or waits there, and returns its version.
func (s *site) held() (*record, string) {
	s.t.Helper()
	r := s.submit()
	var build string
	await(s.t, "the job begins", func() bool { build = s.build(r); return build != "" })
	return r, build
}

// from starts a worker anew as another version.
func (s *site) from(w *cluster.Process, build string) {
	s.t.Helper()
	w.Stop()
	w.Set("COMFYD_BUILD_ID=" + build)
	w.Start()
}

// TestVersions rolls a version out and back with jobs in flight. A job keeps to the version that has begun it, whoever
// serves its GPU; nothing is lost, and the GPU runs once for each job.
func TestVersions(t *testing.T) {
	s := newSite(t, "COMFYD_DEPLOYMENT=comfyd", "COMFYD_BUILD_ID=v1")
	total := 0
	jobs := func(r ...*record) { total += len(r); s.ends(r...) }

	// The first version becomes the current one by itself.
	jobs(s.submit(), s.submit())
	s.sees(`v1 +all others +0 +2`)
	sweep := s.temporal.ScheduleClient().GetHandle(t.Context(), "comfyd-sweep")
	swept := func(n int) {
		t.Helper()
		require.NoError(t, sweep.Trigger(t.Context(), client.ScheduleTriggerOptions{}))
		await(t, "the sweep has ended", func() bool {
			d, err := sweep.Describe(t.Context())
			return err == nil && d.Info.NumActions >= n && len(d.Info.RunningWorkflows) == 0
		})
	}
	swept(1)

	// Half of the workers are of the next version, which gets nothing yet; then a part; then all.
	gate := s.gpu.Hold("ImageAddNoise")
	old, build := s.held()
	require.Equal(t, "v1", build)
	gate.Reached()
	s.from(s.Workers[0], "v2")
	second, build := s.held()
	require.Equal(t, "v1", build)
	s.sees(`v2 +none +0 +1 +may be stopped\nv1 +all others +2 +1`)
	require.Regexp(t, `v2 +30 % `, s.versions("ramp", "v2", "30"))
	got := map[string]int{}
	var ramped []*record
	for range 12 {
		r, build := s.held()
		ramped = append(ramped, r)
		got[build]++
	}
	t.Logf("of 12 jobs with 30 %% for v2: %v", got)
	require.Equal(t, 12, got["v1"]+got["v2"])
	require.Positive(t, got["v1"])
	require.Regexp(t, `v2 +all others`, s.versions("current", "v2"))
	newer, build := s.held()
	require.Equal(t, "v2", build)
	require.Equal(t, "v1", s.build(old), "it keeps to the version that has begun it")
	said, err := s.Try(t.Context(), "worker-1", []string{"temporal", "versions", "wait", "v1", "--timeout=0s"})
	require.Error(t, err)
	require.Contains(t, said, "open jobs keep to version v1")
	gate.Open()
	jobs(append(ramped, old, second, newer)...)
	require.Contains(t, s.versions("wait", "v1", "--timeout=1m"), "its workers may be stopped")
	swept(2)

	// The last worker of a version with open jobs is stopped: they stand still, which is told, and go on with the current
	// version when they are moved.
	gate = s.gpu.Hold("ImageAddNoise")
	s.versions("current", "v1")
	stranded, build := s.held()
	require.Equal(t, "v1", build, "a rollback is for new jobs at once")
	gate.Reached()
	s.versions("current", "v2")
	s.from(s.Workers[1], "v2")
	gate.Open()
	await(t, "a worker says that the job stands still", func() bool {
		return strings.Contains(s.Workers[0].Log()+s.Workers[1].Log(), "keep to version v1, and no worker of that version is there")
	})
	s.sees(`v1 +none +1 +0 +ITS JOBS STAND STILL`)
	require.Contains(t, s.versions("move", "v1"), "1 open jobs go on with version v2")
	jobs(stranded)

	// Nobody is current: jobs are accepted and wait, and readiness says so.
	_, err = s.temporal.WorkerDeploymentClient().GetHandle("comfyd").SetCurrentVersion(t.Context(), client.WorkerDeploymentSetCurrentVersionOptions{IgnoreMissingTaskQueues: true})
	require.NoError(t, err)
	waits := s.submit()
	await(t, "readiness says so", func() bool { return s.ready() == 503 })
	require.Contains(t, s.versions(), "NO VERSION IS CURRENT")
	require.Empty(t, s.build(waits))
	s.versions("current", "v2")
	began := time.Now()
	jobs(waits)
	t.Logf("a job that waited for a current version ended %s after there was one", time.Since(began).Round(time.Millisecond))
	await(t, "all is well again", func() bool { return s.ready() == 200 })

	said, err = s.Try(t.Context(), "worker-1", []string{"temporal", "replay"})
	require.NoError(t, err, said)
	t.Log(strings.TrimSpace(said))
	require.Regexp(t, `(\d+) of \d+ histories replay`, said)
	require.Equal(t, total, s.gpu.TotalRuns(), "one run for each job")
}
