package client_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakeapi"
)

func TestList(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	c := client.New(s.URL, "")
	page, err := c.List(t.Context(), client.ListOptions{})
	require.NoError(t, err)
	require.Equal(t, client.JobList{Jobs: []client.ListedJob{{
		ID: fakeapi.ID, State: comfy.Running, CreatedAt: time.Date(2026, 1, 31, 18, 30, 0, 0, time.UTC), StatusURL: s.URL + "/status/job-1",
	}}}, page)
	require.Empty(t, s.Calls("GET /jobs")[0].Query)

	s.Next("GET /jobs", fakeapi.Answer(200, `{"jobs":[{"id":"x","status":"FAILED","code":"timeout","backend":"url","metadata":{"k":"v"},
		"created_at":"2026-01-31T18:30:00Z","ended_at":"2026-01-31T18:31:00Z","expires_at":"2026-02-07T18:31:00Z"}],"cursor":"abc"}`))
	page, err = c.List(t.Context(), client.ListOptions{
		State: comfy.Failed, Code: comfy.Timeout, Backend: "url", Metadata: map[string]string{"k": "a=b&c", "a": "\u00e4"},
		Since: time.Date(2026, 1, 1, 1, 0, 0, 0, time.FixedZone("", 3600)), Until: time.Date(2026, 2, 1, 0, 0, 0, 5, time.UTC), Limit: 7, Cursor: "xyz",
	})
	require.NoError(t, err)
	require.Equal(t, "backend=url&code=timeout&cursor=xyz&limit=7&metadata=a%3D%C3%A4&metadata=k%3Da%3Db%26c"+
		"&since=2026-01-01T00%3A00%3A00Z&status=FAILED&until=2026-02-01T00%3A00%3A00.000000005Z", s.Calls("GET /jobs")[1].Query)
	require.Equal(t, "abc", page.Cursor)
	require.Equal(t, comfy.Timeout, page.Jobs[0].Code)
	require.Equal(t, map[string]string{"k": "v"}, page.Jobs[0].Metadata)
	require.Equal(t, time.Minute, page.Jobs[0].EndedAt.Sub(page.Jobs[0].CreatedAt))
	require.NotNil(t, page.Jobs[0].ExpiresAt)

	s.Next("GET /jobs", fakeapi.Answer(400, `{"error":"cursor: no","code":"invalid_request"}`), fakeapi.Answer(200, `{"hello":1}`))
	var refused *client.Error
	_, err = c.List(t.Context(), client.ListOptions{Cursor: "x"})
	require.ErrorAs(t, err, &refused)
	require.Equal(t, 400, refused.HTTPStatus)
	_, err = c.List(t.Context(), client.ListOptions{})
	require.ErrorContains(t, err, "is not comfyd")
}

func TestDelete(t *testing.T) {
	t.Parallel()
	canceling := fakeapi.Answer(202, `{"id":"job-1","status":"RUNNING","phase":"canceling"}`)
	missing := fakeapi.Answer(404, `{"error":"Call ID not found or invalid.","code":"not_found"}`)
	for name, test := range map[string]struct {
		answers []http.HandlerFunc
		deleted bool
		status  int // of the error
		calls   int
	}{
		"ended":                    {deleted: true, calls: 1},
		"open":                     {answers: []http.HandlerFunc{canceling}, calls: 1},
		"unknown":                  {answers: []http.HandlerFunc{missing}, status: 404, calls: 1},
		"lost answer":              {answers: []http.HandlerFunc{fakeapi.Break, missing}, deleted: true, calls: 2},
		"a store that comes back":  {answers: []http.HandlerFunc{fakeapi.Answer(503, `{"error":"not now"}`)}, deleted: true, calls: 2},
		"another refusal, at once": {answers: []http.HandlerFunc{fakeapi.Answer(403, `{"error":"no"}`)}, status: 403, calls: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeapi.New(t)
			s.Next("DELETE /jobs/job-1", test.answers...)
			deleted, err := client.New(s.URL, "").Delete(t.Context(), fakeapi.ID)
			require.Equal(t, test.deleted, deleted)
			var refused *client.Error
			if test.status == 0 {
				require.NoError(t, err)
			} else {
				require.ErrorAs(t, err, &refused)
				require.Equal(t, test.status, refused.HTTPStatus)
			}
			require.GreaterOrEqual(t, len(s.Calls("DELETE /jobs/job-1")), test.calls)
		})
	}
	s := fakeapi.New(t)
	_, err := client.New(s.URL, "").Delete(t.Context(), " ")
	require.Error(t, err)
	require.Empty(t, s.Calls("DELETE"))
}
