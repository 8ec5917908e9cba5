package app_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/app"
)

// withFile is a submission whose graph loads one file.
func withFile(t *testing.T, prefix string) map[string]any {
	return map[string]any{
		"workflow": json.RawMessage(`{"1":{"class_type":"LoadImage","inputs":{"image":"in.png"}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"` + prefix + `"}}}`),
		"images":   []any{map[string]any{"name": "in.png", "image": base64.StdEncoding.EncodeToString(onePixel(t))}},
	}
}

func (d *double) delete(id string) {
	d.t.Helper()
	require.Equal(d.t, 204, d.do("DELETE", "/jobs/"+id, nil).code)
	d.gone(id)
}

// TestDelete: everything of a job goes, and nothing that others use.
func TestDelete(t *testing.T) {
	d := onDouble(t, nil)
	require.Empty(t, d.stored())

	// Two jobs with one input: it goes with the last of them.
	first, second := d.submit(withFile(t, "a")), d.submit(withFile(t, "b"))
	links := d.doneWithLinks(first)
	d.finish(second)
	require.Len(t, d.stored("inputs/"), 1)
	bob := *d.api
	bob.key = other
	require.Equal(t, 404, bob.do("DELETE", "/jobs/"+first, nil).code, "another tenant's")
	d.delete(first)
	for _, link := range links {
		res, err := http.Get(link)
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, 404, res.StatusCode, "a link that was signed before")
	}
	require.Len(t, d.stored("inputs/"), 1, "the other job's")
	require.Empty(t, d.stored("outputs/"+first))
	require.NotEmpty(t, d.stored("outputs/"+second))
	require.Equal(t, "COMPLETED", d.finish(second)["status"])
	d.delete(second)
	require.Empty(t, d.stored())

	// A graph in the store goes, too; of a tenant that has the same one, it stays.
	mine, his := d.submit(map[string]any{"workflow": large(5)}), bob.submit(map[string]any{"workflow": large(5)})
	d.finish(mine)
	bob.finish(his)
	require.Len(t, d.stored("graphs/"), 2)
	d.delete(mine)
	require.Equal(t, []string{"graphs/bob/"}, folders(d.stored("graphs/")))
	require.Equal(t, 204, bob.do("DELETE", "/jobs/"+his, nil).code)
	require.Empty(t, d.stored())

	// An input that was put again since the job began stays: somebody is about to use it.
	again := d.submit(withFile(t, "c"))
	d.finish(again)
	body := withFile(t, "c")["images"].([]any)[0]
	ref := d.do("POST", "/inputs", body).body["ref"].(string)
	d.delete(again)
	require.Equal(t, []string{ref}, d.stored())
	third := d.submit(map[string]any{"workflow": withFile(t, "d")["workflow"], "images": []any{map[string]any{"name": "in.png", "ref": ref}}})
	require.Equal(t, "COMPLETED", d.finish(third)["status"])
	d.delete(third)
	require.Empty(t, d.stored())
}

func folders(keys []string) []string {
	var all []string
	for _, k := range keys {
		all = append(all, k[:strings.LastIndexByte(k, '/')+1])
	}
	return all
}

// doneWithLinks waits for a job's end and returns signed links to its outputs.
func (d *double) doneWithLinks(id string) []string {
	d.t.Helper()
	d.finish(id)
	var links []string
	for _, o := range outputs(d.t, d.do("GET", "/status/"+id+"?output=url", nil).body) {
		links = append(links, o["url"].(string))
	}
	require.NotEmpty(d.t, links)
	return links
}

// TestDeleteFreesItsKey: an Idempotency-Key whose job was deleted starts a new one, as soon as Temporal has forgotten.
func TestDeleteFreesItsKey(t *testing.T) {
	d := onDouble(t, nil)
	body := map[string]any{"workflow": graph(81, "key")}
	id := d.submit(body, "Idempotency-Key", "k")
	d.finish(id)
	want := d.stored()
	d.delete(id)
	began := time.Now()
	require.Eventually(t, func() bool {
		r := d.do("POST", "/submit_workflow", body, "Idempotency-Key", "k")
		if r.code == 503 {
			require.NotEmpty(t, r.header.Get("Retry-After"))
			return false
		}
		require.Equal(t, 202, r.code, "%v", r.body)
		require.Empty(t, r.header.Get("Idempotent-Replayed"))
		require.Equal(t, id, r.body["id"])
		return true
	}, 2*time.Minute, 200*time.Millisecond)
	t.Logf("the key was free after %s", time.Since(began))
	require.Equal(t, "COMPLETED", d.finish(id)["status"], "the new job")
	// The removal of the old one, looked after late, leaves the new one's outputs alone.
	d.age(11*time.Minute, "removals/")
	require.EqualValues(t, 1, d.sweep()["removals"])
	require.Equal(t, want, d.stored())
	require.Equal(t, "COMPLETED", d.finish(id)["status"])
}

// TestDeleteOnAnotherReplica: what another replica has deleted, or Temporal has forgotten, is told from no memory for long.
func TestDeleteOnAnotherReplica(t *testing.T) {
	d := onDouble(t, nil)
	t.Setenv("TEMPORAL_ADDRESS", d.app.TemporalAddress)
	replica := startAs(t, app.API, map[string]string{"TEMPORAL_ADDRESS": d.app.TemporalAddress, "COMFYD_STORE_URL": "file://" + d.blobs, "COMFYD_BACKEND": "local", "COMFYD_RETENTION": "2h"})
	ids := []string{d.submit(map[string]any{"workflow": graph(91, "r")}), d.submit(map[string]any{"workflow": graph(92, "r")})}
	for _, id := range ids {
		d.finish(id)
		st := replica.finish(id)
		require.Equal(t, "COMPLETED", st["status"], "and it is in the replica's memory")
		require.Equal(t, 7*24*time.Hour, at(t, st["expires_at"]).Sub(at(t, st["ended_at"])), "the namespace's retention, not the replica's setting")
	}
	began := time.Now()
	d.delete(ids[0])
	require.NotContains(t, (&double{api: replica}).listed(""), ids[0], "at once")
	require.Equal(t, 404, replica.do("DELETE", "/jobs/"+ids[0], nil).code)
	_, err := d.temporal().WorkflowService().DeleteWorkflowExecution(t.Context(), &workflowservice.DeleteWorkflowExecutionRequest{
		Namespace: "default", WorkflowExecution: &common.WorkflowExecution{WorkflowId: ids[1]},
	})
	require.NoError(t, err)
	for _, id := range ids {
		require.Eventually(t, func() bool {
			r := replica.do("GET", "/status/"+id, nil)
			require.Contains(t, []int{200, 404}, r.code, "%v", r.body)
			return r.code == 404
		}, 2*time.Minute, 100*time.Millisecond)
		t.Logf("404 on the other replica after %s", time.Since(began))
	}
}

// TestList: own jobs, page by page, by what they are.
func TestList(t *testing.T) {
	d := onDouble(t, nil)
	d.comfy.FailNode("ImageAddNoise", "ValueError", "no noise")
	var want []string
	for n := range 7 {
		id := d.submit(map[string]any{"workflow": graph(100+n, "l"), "metadata": map[string]string{"n": string(rune('a' + n)), "dir": `c:\x\`, "Case": "It's \\ \"a\" label"}})
		d.finish(id)
		want = append(want, id)
	}
	slices.Reverse(want)
	failing := d.submit(map[string]any{"workflow": json.RawMessage(`{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":48,"batch_size":1,"color":1}},
		"2":{"class_type":"ImageAddNoise","inputs":{"image":["1",0],"seed":1,"strength":0.5}},"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"f"}}}`)})
	require.Equal(t, "node_failed", d.finish(failing)["code"])
	gate := d.comfy.Hold("EmptyImage")
	open := d.submit(map[string]any{"workflow": graph(120, "open")})
	gate.Reached()
	bob := *d.api
	bob.key = other
	his := bob.submit(map[string]any{"workflow": graph(121, "bob"), "metadata": map[string]string{"n": "a"}})
	// A child as another team would start it: with no tenant, and with somebody else's name on it.
	c := d.temporal()
	child := func(id string, attributes ...temporal.SearchAttributeUpdate) {
		_, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			ID: id, TaskQueue: "comfyui", TypedSearchAttributes: temporal.NewSearchAttributes(attributes...),
		}, comfy.WorkflowName, comfy.Request{Workflow: graph(122, "child")})
		require.NoError(t, err)
	}
	child("a child's \"id\"")
	child("forged", temporal.NewSearchAttributeKeyKeyword(comfy.AttrTenant).ValueSet("bob"))
	require.Equal(t, 202, d.do("GET", "/status/forged", nil).code, "it is the default tenant's, whatever it says")

	all := append([]string{"forged", "a child's \"id\"", open, failing}, want...)
	require.Eventually(t, func() bool { return len(d.listed("")) == len(all) }, 2*time.Minute, 100*time.Millisecond)
	require.Equal(t, all, d.listed(""), "open jobs first, then by their end, the newest first")
	require.Equal(t, []string{his}, (&double{api: &bob}).listed(""), "each sees his own")
	gate.Open()
	d.finish(open)

	for query, ids := range map[string][]string{
		"&status=COMPLETED&metadata=n=b":                       {want[5]},
		"&metadata=n%3Db&metadata=Case=It's+%5C+%22a%22+label": {want[5]},
		"&metadata=n=B":                            {},
		"&metadata=dir=c:%5Cx%5C":                  want,
		"&metadata=n=b&metadata=n=c":               {},
		"&metadata=Case=It's+%5C+%22a%22+label":    want,
		"&status=FAILED":                           {failing},
		"&code=node_failed":                        {failing},
		"&code=canceled":                           {},
		"&backend=mars":                            {},
		"&metadata=n=x'+OR+ComfyTenant='bob":       {},
		"&metadata=n=x%5C'+OR+ComfyTenant='bob":    {},
		"&metadata=n=a%22)+OR+Keyword01+:+(%22bob": {},
		"&backend=x'+OR+'1'='1":                    {},
		"&since=2100-01-01T00:00:00Z":              {},
		"&until=2020-01-01T00:00:00%2B02:00":       {},
		"&since=9999-12-31T23:59:59Z":              {},
		"&until=1970-01-01T00:00:00Z":              {},
		"&status=COMPLETED&since=2020-01-01T00:00:00Z&metadata=n=a&backend=url": {want[6]},
	} {
		require.Equal(t, ids, d.listed(query), query)
	}

	// What an entry says.
	e := d.do("GET", "/jobs?metadata=n=b", nil).body["jobs"].([]any)[0].(map[string]any)
	st := d.finish(want[5])
	require.Equal(t, []any{st["id"], "COMPLETED", "url"}, []any{e["id"], e["status"], e["backend"]})
	for _, k := range []string{"created_at", "ended_at", "expires_at"} {
		require.WithinDuration(t, at(t, st[k]), at(t, e[k]), time.Millisecond, k) // lists know microseconds
	}
	require.Equal(t, map[string]any{"n": "b", "dir": `c:\x\`, "Case": "It's \\ \"a\" label"}, e["metadata"])
	require.Equal(t, d.url+"/status/"+want[5], e["status_url"])

	// A cursor is good for its own list alone.
	cursor := d.do("GET", "/jobs?limit=2", nil).body["cursor"].(string)
	require.Equal(t, 400, bob.do("GET", "/jobs?cursor="+cursor, nil).code)
	require.Equal(t, 400, d.do("GET", "/jobs?status=COMPLETED&cursor="+cursor, nil).code)
	require.Equal(t, 200, d.do("GET", "/jobs?limit=5&cursor="+cursor, nil).code)
}

func at(t *testing.T, v any) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, v.(string))
	require.NoError(t, err)
	return parsed
}

// TestRetention: what Temporal forgets is gone from the store at the next sweep, and nothing else.
func TestRetention(t *testing.T) {
	d := onDouble(t, map[string]string{"COMFYD_RETENTION": "1h"})
	old := d.submit(withFile(t, "old"))
	link := d.doneWithLinks(old)[0]
	kept := d.submit(map[string]any{"workflow": large(6)})
	d.finish(kept)
	before := d.stored()
	require.Len(t, before, 4)
	require.Equal(t, map[string]any{"removals": 0.0, "outputs": 0.0, "inputs": 0.0, "graphs": 0.0, "catalogs": 0.0, "bytes": 0.0}, d.sweep())
	d.age(1000*time.Hour, "outputs/", "inputs/", "graphs/", "catalogs/")
	d.sweep()
	require.ElementsMatch(t, before, d.stored(), "old alone is no reason: their jobs are known")
	d.ready()

	_, err := d.temporal().WorkflowService().DeleteWorkflowExecution(t.Context(), &workflowservice.DeleteWorkflowExecutionRequest{
		Namespace: "default", WorkflowExecution: &common.WorkflowExecution{WorkflowId: old},
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return d.do("GET", "/status/"+old, nil).code == 404 }, 2*time.Minute, 100*time.Millisecond)
	require.Eventually(t, func() bool { return d.sweep()["inputs"] == 1.0 }, 2*time.Minute, 500*time.Millisecond)
	require.Empty(t, d.stored("outputs/"+old, "inputs/"))
	require.Len(t, d.stored(), 2)
	require.Equal(t, "COMPLETED", d.finish(kept)["status"])
	res, err := http.Get(link)
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, 404, res.StatusCode)

	schedule := d.temporal().ScheduleClient().GetHandle(t.Context(), "comfyd-sweep")
	s, err := schedule.Describe(t.Context())
	require.NoError(t, err)
	require.Equal(t, time.Hour, s.Schedule.Spec.Intervals[0].Every)
	done := s.Info.NumActions
	require.NoError(t, schedule.Trigger(t.Context(), client.ScheduleTriggerOptions{}))
	require.Eventually(t, func() bool {
		s, err := schedule.Describe(t.Context())
		return err == nil && s.Info.NumActions > done && len(s.Info.RunningWorkflows) == 0
	}, 2*time.Minute, 100*time.Millisecond, "the schedule runs it")

	// A worker brings the schedule of an earlier version up to date, and leaves it paused.
	require.NoError(t, schedule.Pause(t.Context(), client.SchedulePauseOptions{}))
	require.NoError(t, schedule.Update(t.Context(), client.ScheduleUpdateOptions{DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
		in.Description.Schedule.Spec = &client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: 7 * time.Hour}}}
		in.Description.Schedule.Action.(*client.ScheduleWorkflowAction).TaskQueue = "old"
		return &client.ScheduleUpdate{Schedule: &in.Description.Schedule}, nil
	}}))
	t.Setenv("TEMPORAL_ADDRESS", d.app.TemporalAddress)
	startAs(t, app.Worker, map[string]string{"TEMPORAL_ADDRESS": d.app.TemporalAddress, "COMFYD_STORE_URL": "file://" + d.blobs, "COMFYUI_URLS": d.comfy.URL, "COMFYD_RETENTION": "1h"})
	s, err = schedule.Describe(t.Context())
	require.NoError(t, err)
	require.Equal(t, []client.ScheduleIntervalSpec{{Every: time.Hour}}, s.Schedule.Spec.Intervals)
	require.Equal(t, comfy.TaskQueue, s.Schedule.Action.(*client.ScheduleWorkflowAction).TaskQueue)
	require.True(t, s.Schedule.State.Paused)
}
