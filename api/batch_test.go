package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/comfyd/comfyd/comfy"
)

const seeded = `{"3":{"class_type":"KSampler","inputs":{"seed":18446744073709551615,"steps":4,"model":["4",0]}},"3.1":{"class_type":"RandomNoise","inputs":{"noise_seed":7}},
	"4":{"class_type":"Primitive","inputs":{"seed":["3.1",0],"text":"a cat","a.b":"x"}},"9":{"class_type":"SaveImage","inputs":{"images":["3",0]}}}`

func (h *harness) batch(body string, headers ...string) answer {
	h.t.Helper()
	return h.do("POST", "/batch", body, headers...)
}

// jobsOf are the runs of an accepted batch, in its order.
func (h *harness) jobsOf(a answer) []*fakeRun {
	h.t.Helper()
	require.Equal(h.t, 202, a.status, "%s", a.raw)
	var runs []*fakeRun
	for _, j := range a.body["jobs"].([]any) {
		job := j.(map[string]any)
		require.Equal(h.t, "RUNNING", job["status"])
		require.Equal(h.t, "http://"+h.addr+"/status/"+job["id"].(string), job["status_url"])
		run, err := h.temporal.get(job["id"].(string))
		require.NoError(h.t, err)
		require.Equal(h.t, a.body["batch_id"], run.request.Metadata[comfy.BatchLabel])
		runs = append(runs, run)
	}
	return runs
}

func TestBatch(t *testing.T) {
	h := newHarness(t)
	a := h.batch(`{"workflow":` + seeded + `,"metadata":{"shot":"7"},"priority":2,"timeout_seconds":60,"images":[{"name":"a.png","image":"aGVsbG8="}],
		"variations":[{"3.seed":9007199254740993,"4.text":"a dog"},{},{"4.a.b":{"deep":[1.50]},"3.1.noise_seed":["4",0]}]}`)
	runs := h.jobsOf(a)
	require.Len(t, runs, 3)
	require.Len(t, h.temporal.runs, 3)
	compact := strings.NewReplacer("\n", "", "\t", "").Replace
	for i, want := range []string{
		strings.Replace(strings.Replace(seeded, "18446744073709551615", "9007199254740993", 1), "a cat", "a dog", 1),
		seeded,
		strings.Replace(strings.Replace(seeded, `"x"`, `{"deep":[1.50]}`, 1), `"noise_seed":7`, `"noise_seed":["4",0]`, 1),
	} {
		require.Equal(t, compact(strings.ReplaceAll(want, " ", "")), strings.ReplaceAll(string(runs[i].request.Workflow), " ", ""), "digit for digit, and nothing else")
		require.Equal(t, map[string]string{"shot": "7", comfy.BatchLabel: a.body["batch_id"].(string)}, runs[i].request.Metadata)
		require.Equal(t, 2, runs[i].options.Priority.PriorityKey)
		require.Equal(t, 60, runs[i].request.TimeoutSeconds)
		require.Len(t, runs[i].request.Images, 1)
	}
	require.Len(t, h.store.objects, 1)
	require.Equal(t, "http://"+h.addr+"/jobs?metadata=comfyd_batch%3D"+a.body["batch_id"].(string), a.body["jobs_url"])
	h.temporal.lists = func(*workflowservice.ListWorkflowExecutionsRequest) *workflowservice.ListWorkflowExecutionsResponse {
		return &workflowservice.ListWorkflowExecutionsResponse{Executions: []*workflowpb.WorkflowExecutionInfo{}}
	}
	require.Equal(t, 200, h.do("GET", a.body["jobs_url"].(string), "").status)
	require.Contains(t, h.temporal.queried[0].Query, "ComfyMetadata = 'comfyd_batch="+a.body["batch_id"].(string)+"'")
}

func TestBatchOfSeeds(t *testing.T) {
	h := newHarness(t)
	seeds := func(a answer) []string {
		var all []string
		for i, run := range h.jobsOf(a) {
			g, err := comfy.ParseGraph(run.request.Workflow)
			require.NoError(t, err)
			told := a.body["jobs"].([]any)[i].(map[string]any)["seeds"].(map[string]any)
			require.Len(t, told, 2)
			for at, input := range map[string]json.RawMessage{"3.seed": g.Nodes["3"].Inputs["seed"], "3.1.noise_seed": g.Nodes["3.1"].Inputs["noise_seed"]} {
				var value uint32
				require.NoError(t, json.Unmarshal(input, &value), "%s", input)
				require.EqualValues(t, value, told[at])
			}
			require.JSONEq(t, `["3.1",0]`, string(g.Nodes["4"].Inputs["seed"]), "a link stays")
			all = append(all, string(g.Nodes["3"].Inputs["seed"]))
		}
		return all
	}
	one := seeds(h.batch(`{"workflow":` + seeded + `,"seeds":100}`))
	require.Len(t, one, 100)
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(one))), 100)
	require.NotEqual(t, one[:3], seeds(h.batch(`{"workflow":`+seeded+`,"seeds":3}`)), "another batch has others")
}

func TestBatchRefusals(t *testing.T) {
	h := newHarness(t)
	with := func(fields string) string { return `{"workflow":` + seeded + `,` + fields + `}` }
	var labels []string
	for n := range comfy.MaxLabels {
		labels = append(labels, fmt.Sprintf(`"%d":""`, n))
	}
	for name, c := range map[string]struct {
		body   string
		status int
		code   Code
		text   string
	}{
		"nothing":        {with(`"priority":1`), 400, CodeInvalidRequest, "variations"},
		"none":           {with(`"variations":[]`), 400, CodeInvalidRequest, "variations"},
		"both":           {with(`"variations":[{}],"seeds":2`), 400, CodeInvalidRequest, "not both"},
		"an object":      {with(`"variations":{"3.seed":1}`), 400, CodeInvalidRequest, "must be a list"},
		"of lists":       {with(`"variations":[{},["3.seed"]]`), 400, CodeInvalidRequest, "variations[1] must be an object"},
		"twice":          {with(`"variations":[{"3.seed":1,"3.seed":2}]`), 400, CodeInvalidRequest, `variations[0]: "3.seed" stands twice`},
		"no node":        {with(`"variations":[{},{"5.seed":1}]`), 400, CodeInvalidRequest, `variations[1]: "5.seed" begins with no node`},
		"no dot":         {with(`"variations":[{"seed":1}]`), 400, CodeInvalidRequest, `begins with no node`},
		"no input":       {with(`"variations":[{"3.sed":1}]`), 400, CodeInvalidRequest, `node 3 (KSampler) has no such input in the workflow; it has model, seed, steps`},
		"bad graph":      {with(`"variations":[{},{"4.text":{"a":1,"a":2}}]`), 400, CodeInvalidWorkflow, "variations[1]: "},
		"infinite":       {with(`"variations":[{"3.steps":1e999}]`), 400, CodeInvalidWorkflow, "variations[0]: "},
		"cut":            {`{"workflow":{},"variations":[{"3.steps":`, 400, CodeInvalidRequest, "too early"},
		"negative seeds": {with(`"seeds":-1`), 400, CodeInvalidRequest, "seeds is -1"},
		"fraction":       {with(`"seeds":1.5`), 400, CodeInvalidRequest, "seeds must be a whole number"},
		"many seeds":     {with(`"seeds":101`), 422, CodeLimitExceeded, "at most 100"},
		"many":           {with(`"variations":[` + strings.Repeat(`{},`, 100) + `{}]`), 422, CodeLimitExceeded, "more than 100"},
		"no seed":        {`{"workflow":` + graphJSON + `,"seeds":2}`, 400, CodeInvalidRequest, "no input seed or noise_seed"},
		"own label":      {with(`"seeds":2,"metadata":{"comfyd_batch":"x"}`), 400, CodeInvalidRequest, "comfyd_batch"},
		"full labels":    {with(`"seeds":2,"metadata":{` + strings.Join(labels, ",") + `}`), 422, CodeLimitExceeded, "17 entries"},
		"large":          {`{"workflow":{"1":{"class_type":"A","inputs":{"seed":1,"t":"` + strings.Repeat("x", 2<<20) + `"}}},"seeds":100}`, 422, CodeLimitExceeded, "COMFYD_BODY_LIMIT"},
		"no workflow":    {`{"seeds":2}`, 400, CodeInvalidRequest, "workflow is missing"},
		"image":          {with(`"seeds":2,"images":[{"name":"a.png","image":"https://10.0.0.1/"}]`), 422, CodeInvalidInput, "images[0] (a.png)"},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			a := h.batch(c.body)
			h.requireError(a, c.status, c.code)
			require.Contains(t, a.body["error"], c.text)
		})
	}
	h.t = t
	h.catalogs.refuses = func(g *comfy.Graph) *comfy.Failure {
		if string(g.Nodes["3"].Inputs["steps"]) == "0" {
			return &comfy.Failure{Code: comfy.InvalidWorkflow, Message: "too few steps", NodeErrors: comfy.NodeErrors{"3": {ClassType: "KSampler", Errors: []comfy.InputError{}, DependentOutputs: []string{}}}}
		}
		return nil
	}
	a := h.batch(with(`"variations":[{},{},{"3.steps":0}]`))
	h.requireError(a, 400, CodeInvalidWorkflow)
	require.Equal(t, "variations[2]: too few steps", a.body["error"])
	require.Contains(t, a.body["node_errors"], "3")
	require.Empty(t, h.temporal.runs, "all or nothing")
}

func TestBatchIdempotency(t *testing.T) {
	h := newHarness(t, here)
	h.setClock(time.Now()) // links are the same in each answer
	s := newSource(t)
	body := func(variations string) string {
		return `{"workflow":` + seeded + `,"images":[{"name":"a.png","image":"` + s.URL + `/changes"}],"variations":[` + variations + `]}`
	}
	first := h.batch(body(`{"3.seed":1},{"3.seed":2},{"3.seed":3}`), "Idempotency-Key", "k")
	runs := h.jobsOf(first)
	require.Empty(t, first.header.Get("Idempotent-Replayed"))
	require.Equal(t, uuid.Version(5), uuid.MustParse(first.body["batch_id"].(string)).Version())
	h.catalogs.refuse.Store(&comfy.Failure{Code: comfy.InvalidWorkflow, Message: "no longer known"})
	again := h.batch(body(`{"3.seed":1}, {"3.seed":2},{"3.seed":3}`), "Idempotency-Key", "k")
	require.Equal(t, 202, again.status, "%s", again.raw)
	require.Equal(t, "true", again.header.Get("Idempotent-Replayed"))
	require.Equal(t, first.body, again.body)

	// After a crash in the middle some of its jobs are missing: they are started, with the files that the first one has.
	h.temporal.set(first.body["jobs"].([]any)[2].(map[string]any)["id"].(string), nil)
	again = h.batch(body(`{"3.seed":1},{"3.seed":2},{"3.seed":3}`), "Idempotency-Key", "k")
	completed := h.jobsOf(again)
	require.Equal(t, first.body, again.body)
	require.Empty(t, again.header.Get("Idempotent-Replayed"))
	require.Equal(t, runs[2].request, completed[2].request)
	require.EqualValues(t, 1, s.asked.Load(), "the files of the first request are taken")

	for _, other := range []string{`{"3.seed":1},{"3.seed":2}`, `{"3.seed":1},{"3.seed":2},{"3.seed":3},{"3.seed":4}`, `{"3.seed":9},{"3.seed":2},{"3.seed":3}`} {
		h.requireError(h.batch(body(other), "Idempotency-Key", "k"), 422, CodeIdempotencyKeyReuse)
	}
	h.catalogs.refuse.Store(nil)
	require.Equal(t, 202, h.submit(small, "Idempotency-Key", "k").status, "a submission's keys are others")
	require.NotEqual(t, first.body["batch_id"], h.batch(body(`{}`), "Idempotency-Key", "k", "Authorization", "Bearer "+keyB).body["batch_id"])

	one := h.batch(`{"workflow":`+seeded+`,"seeds":4}`, "Idempotency-Key", "s")
	require.Equal(t, one.body, h.batch(`{"workflow":`+seeded+`,"seeds":4}`, "Idempotency-Key", "s").body, "the same seeds")
}

// TestBatchAtOnce: the same batch many times is one.
func TestBatchAtOnce(t *testing.T) {
	h := newHarness(t)
	var wg sync.WaitGroup
	answers := make([]answer, 5)
	for i := range answers {
		wg.Go(func() { answers[i] = h.batch(`{"workflow":`+seeded+`,"seeds":10}`, "Idempotency-Key", "k") })
	}
	wg.Wait()
	for _, a := range answers {
		require.Equal(t, answers[0].body, a.body)
	}
	require.Len(t, h.temporal.runs, 10)
}

func TestBatchKeepsTheBounds(t *testing.T) {
	h := newHarness(t, func(o *Options) { o.MaxOpenJobsPerTenant = 5 })
	a := h.batch(`{"workflow":` + seeded + `,"seeds":6}`)
	h.requireError(a, 422, CodeLimitExceeded)
	require.Contains(t, a.body["error"], "COMFYD_MAX_OPEN_JOBS_PER_TENANT", "it will never fit")
	require.Empty(t, h.temporal.runs)
	h.jobsOf(h.batch(`{"workflow":`+seeded+`,"seeds":5}`, "Idempotency-Key", "k"))
	a = h.batch(`{"workflow":` + seeded + `,"seeds":1}`)
	h.requireError(a, 429, CodeRateLimited)
	require.Contains(t, a.body["error"], "COMFYD_MAX_OPEN_JOBS_PER_TENANT")
	require.Equal(t, "true", h.batch(`{"workflow":`+seeded+`,"seeds":5}`, "Idempotency-Key", "k").header.Get("Idempotent-Replayed"), "what is there needs no place")
}

// half makes Temporal fail after so many starts.
func (h *harness) half(after int, headers ...string) answer {
	h.t.Helper()
	h.temporal.mu.Lock()
	h.temporal.failAfter, h.temporal.failWith = after, serviceerror.NewUnavailable("gone")
	h.temporal.mu.Unlock()
	a := h.batch(`{"workflow":`+seeded+`,"seeds":30}`, headers...)
	h.temporal.mu.Lock()
	h.temporal.failWith = nil
	h.temporal.mu.Unlock()
	return a
}

// TestHalfABatchIsTakenBack: without a key the client was told that nothing was accepted, and so it becomes.
func TestHalfABatchIsTakenBack(t *testing.T) {
	h := newTunedHarness(t, quickly)
	a := h.half(11)
	h.requireError(a, 503, CodeUnavailable)
	require.Contains(t, a.body["error"], "canceled")
	require.Len(t, h.temporal.runs, 11)
	require.Eventually(t, func() bool {
		for _, run := range h.temporal.all() {
			if !h.canceled(run) {
				return false
			}
		}
		return true
	}, 30*time.Second, time.Millisecond)
}

// TestHalfABatchIsCompleted: with a key the client sends it again.
func TestHalfABatchIsCompleted(t *testing.T) {
	h := newTunedHarness(t, quickly)
	a := h.half(11, "Idempotency-Key", "k")
	h.requireError(a, 503, CodeUnavailable)
	require.Contains(t, a.body["error"], "same Idempotency-Key")
	h.catalogs.refuse.Store(&comfy.Failure{Code: comfy.InvalidWorkflow, Message: "no longer known"})
	runs := h.jobsOf(h.batch(`{"workflow":`+seeded+`,"seeds":30}`, "Idempotency-Key", "k"))
	require.Len(t, runs, 30)
	require.Len(t, h.temporal.runs, 30)
	for _, run := range runs {
		require.False(t, h.canceled(run))
	}
	require.False(t, h.server.withdrawals.some())
}
