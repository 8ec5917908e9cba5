package cli

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakeapi"
)

const listed = `{"jobs":[{"id":"job-2","status":"RUNNING","created_at":"2026-01-31T18:31:00Z"},
	{"id":"job-1","status":"FAILED","code":"timeout","backend":"url","metadata":{"shot":"7\u001b","a":"b"},
	"created_at":"2026-01-31T18:30:00Z","ended_at":"2026-01-31T18:30:12.34Z"}],"cursor":"next"}`

func TestJobs(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Next("GET /jobs", fakeapi.Answer(200, listed))
	sh := newShell(t, s)
	require.Equal(t, 0, sh.run("jobs", "--status", "failed", "--code", "timeout", "--backend", "url", "--metadata", "shot=7",
		"--since", "2026-01-31T18:30:00Z", "--until", "0s", "--limit", "2"), sh.err.String())
	require.Regexp(t, `^ID     STATUS          SUBMITTED            TOOK   BACKEND  LABELS
job-2  RUNNING         2026-0\d-\d\d \d\d:31:00  -      -        -
job-1  FAILED timeout  2026-0\d-\d\d \d\d:30:00  12.3s  url      a=b shot=7 +
$`, sh.out.String())
	require.Equal(t, "there may be more: --limit 10, or --all\n", sh.err.String())
	query, err := url.ParseQuery(s.Calls("GET /jobs")[0].Query)
	require.NoError(t, err)
	until, err := time.Parse(time.RFC3339Nano, query.Get("until"))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), until, time.Minute)
	query.Del("until")
	require.Equal(t, "backend=url&code=timeout&limit=2&metadata=shot%3D7&since=2026-01-31T18%3A30%3A00Z&status=FAILED", query.Encode())

	// Page by page.
	s.Next("GET /jobs", fakeapi.Answer(200, listed))
	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("jobs", "--all", "-q"))
	require.Equal(t, []string{"job-2", "job-1", "job-1"}, sh.out.lines())
	require.Equal(t, "cursor=next&limit=100", s.Calls("GET /jobs")[2].Query)

	s.Next("GET /jobs", fakeapi.Answer(200, `{"jobs":[]}`), fakeapi.Answer(200, `{"jobs":[]}`))
	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("jobs"))
	require.Empty(t, sh.out.String())
	require.Equal(t, "no such jobs\n", sh.err.String())
	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("jobs", "--json"))
	require.JSONEq(t, `{"jobs":[]}`, sh.out.String())

	for _, wrong := range [][]string{{"jobs", "job-1"}, {"jobs", "--limit", "0"}, {"jobs", "--since", "soon"}, {"jobs", "--metadata", "x"}} {
		require.Equal(t, 2, newShell(t, s).run(wrong...), wrong)
	}
	require.Len(t, s.Calls("GET /jobs"), 5)
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"7d": now.AddDate(0, 0, -7), "90m": now.Add(-90 * time.Minute), "": {},
		"2026-03-01": time.Date(2026, 3, 1, 0, 0, 0, 0, time.Local), "2026-03-01T01:02:03+02:00": time.Date(2026, 2, 28, 23, 2, 3, 0, time.UTC),
	} {
		got, err := moment("--since", text, now)
		require.NoError(t, err)
		require.True(t, want.Equal(got), "%s: %s", text, got)
	}
	for _, text := range []string{"-3d", "-1h", "d", "tomorrow"} {
		_, err := moment("--since", text, now)
		require.ErrorContains(t, err, "--since", text)
	}
}

// TestDelete: an open job takes more than one call.
func TestDelete(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Next("DELETE /jobs/job-1", fakeapi.Answer(202, `{"id":"job-1","status":"RUNNING","phase":"canceling"}`))
	sh := newShell(t, s)
	require.Equal(t, 0, sh.run("delete", "job-1"))
	require.Equal(t, "job-1 is deleted\n", sh.out.String())
	require.Equal(t, "job-1 is being canceled\n", sh.err.String())
	require.Len(t, s.Calls("DELETE"), 2)
	require.Equal(t, 2, newShell(t, s).run("delete", "nope"))
}
