package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"

	"github.com/comfyd/comfyd/comfy"
)

func TestSubmitStartsTheWorkflow(t *testing.T) {
	h := newHarness(t)
	a := h.submit(`{"workflow":`+graphJSON+`,"timeout_seconds":60,"priority":2,"backend":"url","gpu":"A100-80GB","metadata":{"b":"2","a":"1"},"extra_pnginfo":{"workflow":{"n": 1}},"strip_metadata":true,"unknown":[1]}`, "X-Request-Id", "req-7")
	require.Equal(t, 202, a.status, "%s", a.raw)
	id := a.body["id"].(string)
	require.Equal(t, uuid.Version(4), uuid.MustParse(id).Version())
	require.Equal(t, "RUNNING", a.body["status"])
	require.Equal(t, "http://"+h.addr+"/status/"+id, a.body["status_url"])
	require.Equal(t, "http://"+h.addr+"/cancel/"+id, a.body["cancel_url"])
	require.Equal(t, "req-7", a.header.Get("X-Request-Id"))

	run, err := h.temporal.get(id)
	require.NoError(t, err)
	require.Equal(t, comfy.WorkflowName, run.info.Type.Name)
	require.JSONEq(t, graphJSON, string(run.request.Workflow))
	require.Contains(t, string(run.request.Workflow), "9007199254740993", "digits are kept")
	require.Equal(t, 60, run.request.TimeoutSeconds)
	require.Equal(t, 2, run.request.Priority)
	require.Equal(t, "url", run.request.Backend)
	require.Equal(t, "A100-80GB", run.request.GPU)
	require.Equal(t, map[string]string{"a": "1", "b": "2"}, run.request.Metadata)
	require.JSONEq(t, `{"workflow":{"n":1}}`, string(run.request.ExtraPNGInfo))
	require.True(t, run.request.StripMetadata)

	o := run.options
	require.Equal(t, comfy.TaskQueue, o.TaskQueue)
	require.Equal(t, enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE, o.WorkflowIDReusePolicy)
	require.True(t, o.WorkflowExecutionErrorWhenAlreadyStarted)
	require.Equal(t, time.Hour+time.Minute+grace, o.WorkflowExecutionTimeout)
	require.Equal(t, 2, o.Priority.PriorityKey)
	require.Equal(t, "a", o.Priority.FairnessKey)
	require.Equal(t, "`SaveImage`", o.StaticSummary)
	require.NotContains(t, o.StaticDetails, "/jobs/", "the address that a request names is no link for others")
	memo := o.Memo[comfy.MemoSubmission].(comfy.Submission)
	require.Equal(t, "a", memo.Tenant)
	require.Equal(t, "req-7", memo.RequestID)
	require.Len(t, memo.Digest, 64)
	var names []string
	for key, value := range o.TypedSearchAttributes.GetUntypedValues() {
		names = append(names, fmt.Sprintf("%s=%v", key.GetName(), value))
	}
	slices.Sort(names)
	require.Equal(t, []string{"ComfyInputs=[none]", "ComfyMetadata=[a=1 b=2]", "ComfyTenant=a"}, names)
}

func TestSubmitTakesTheGraphAsText(t *testing.T) {
	h := newHarness(t)
	text, err := json.Marshal(graphJSON)
	require.NoError(t, err)
	a := h.submit("\ufeff" + `{"workflow":` + string(text) + `}`)
	require.Equal(t, 202, a.status, "%s", a.raw)
	run, err := h.temporal.get(a.body["id"].(string))
	require.NoError(t, err)
	require.JSONEq(t, graphJSON, string(run.request.Workflow))
}

func TestSubmitRefusesWithAReason(t *testing.T) {
	h := newHarness(t)
	with := func(fields string) string { return `{"workflow":` + graphJSON + `,` + fields + `}` }
	png := `"image":"aGVsbG8="`
	many := strings.Repeat(`{"name":"a","image":"b"},`, comfy.MaxImages) + `{"name":"a","image":"b"}`
	var nine []string
	for n := range 9 {
		nine = append(nine, fmt.Sprintf(`"%d":"%s"`, n, strings.Repeat("x", 250)))
	}
	for name, c := range map[string]struct {
		body   string
		status int
		code   Code
		text   string
	}{
		"empty":              {" ", 400, CodeInvalidRequest, "too early"},
		"not JSON":           {"{nope", 400, CodeInvalidRequest, "at byte"},
		"a list":             {"[]", 400, CodeInvalidRequest, "JSON object"},
		"cut":                {`{"workflow":{"1":{`, 400, CodeInvalidRequest, "too early"},
		"more behind":        {`{"workflow":{}} {}`, 400, CodeInvalidRequest, "behind"},
		"no workflow":        {`{}`, 400, CodeInvalidRequest, "workflow is missing"},
		"null workflow":      {`{"workflow":null}`, 400, CodeInvalidRequest, "workflow is missing"},
		"bare graph":         {graphJSON, 400, CodeInvalidRequest, "Put the graph into the field workflow"},
		"ComfyUI's own body": {`{"prompt":` + graphJSON + `}`, 400, CodeInvalidRequest, "Put the graph into"},
		"bare editor format": {`{"nodes":[],"links":[],"version":0.4}`, 400, CodeInvalidRequest, "Put the graph into the field workflow"},
		"editor format":      {`{"workflow":{"last_node_id":1,"nodes":[],"links":[],"version":0.4}}`, 503, CodeUnavailable, "which nodes it has"},
		"twice":              {with(`"priority":1,"priority":2`), 400, CodeInvalidRequest, `"priority" stands twice`},
		"number as workflow": {`{"workflow":3}`, 400, CodeInvalidWorkflow, ""},
		"empty graph":        {`{"workflow":{}}`, 400, CodeInvalidWorkflow, ""},
		"poison":             {`{"workflow":{"1":{"class_type":"A"}}}`, 400, CodeInvalidWorkflow, ""},
		"timeout text":       {with(`"timeout_seconds":"x"`), 400, CodeInvalidRequest, "timeout_seconds must be a whole number, not string"},
		"timeout fraction":   {with(`"timeout_seconds":1.5`), 400, CodeInvalidRequest, "timeout_seconds must be a whole number"},
		"timeout negative":   {with(`"timeout_seconds":-1`), 400, CodeInvalidRequest, "timeout_seconds"},
		"timeout long":       {with(`"timeout_seconds":90000`), 422, CodeLimitExceeded, "86400"},
		"priority":           {with(`"priority":6`), 400, CodeInvalidRequest, "priority"},
		"backend":            {with(`"backend":"A B"`), 400, CodeInvalidRequest, "backend"},
		"strip":              {with(`"strip_metadata":1`), 400, CodeInvalidRequest, "strip_metadata must be true or false"},
		"metadata list":      {with(`"metadata":["x"]`), 400, CodeInvalidRequest, "metadata"},
		"metadata number":    {with(`"metadata":{"a":1}`), 400, CodeInvalidRequest, "metadata"},
		"metadata long":      {with(`"metadata":{"a":"` + strings.Repeat("x", 300) + `"}`), 422, CodeLimitExceeded, "metadata"},
		"metadata large":     {with(`"metadata":{` + strings.Join(nine, ",") + `}`), 422, CodeLimitExceeded, "metadata: all labels"},
		"metadata separator": {with(`"metadata":{"a":"b♡"}`), 400, CodeInvalidRequest, "tell labels apart"},
		"metadata key":       {with(`"metadata":{"a=b":"c"}`), 400, CodeInvalidRequest, "equals sign"},
		"pnginfo":            {with(`"extra_pnginfo":"x"`), 400, CodeInvalidRequest, "extra_pnginfo must be an object"},
		"pnginfo long":       {with(`"extra_pnginfo":{"a":"` + strings.Repeat("x", maxExtraPNGInfo) + `"}`), 422, CodeLimitExceeded, "extra_pnginfo"},
		"webhook":            {with(`"webhook_url":"https://10.0.0.1/hook"`), 422, CodeInvalidWebhook, "not a public address"},
		"webhook's scheme":   {with(`"webhook_url":"ftp://x"`), 422, CodeInvalidWebhook, "scheme"},
		"webhook's login":    {with(`"webhook_url":"https://me:secret@x/"`), 422, CodeInvalidWebhook, "password"},
		"webhook, a number":  {with(`"webhook_url":7`), 400, CodeInvalidRequest, "webhook_url must be a string"},
		"webhook, too long":  {with(`"webhook_url":"https://x/` + strings.Repeat("a", 2048) + `"`), 422, CodeInvalidWebhook, "2048"},
		"gpu":                {with(`"gpu":"L40S or so"`), 400, CodeInvalidRequest, "gpu"},
		"RunPod's own body":  {`{"input":{"workflow":` + graphJSON + `}}`, 400, CodeInvalidRequest, "without it"},
		"seeds":              {with(`"seeds":3`), 422, CodeNotSupported, "POST /batch"},
		"variations":         {with(`"variations":[{"1.width":8}]`), 422, CodeNotSupported, "POST /batch"},
		"image URL":          {with(`"images":[{"name":"a.png","image":"https://10.0.0.1/a.png"}]`), 422, CodeInvalidInput, "images[0] (a.png)"},
		"images object":      {with(`"images":{}`), 400, CodeInvalidRequest, "images must be a list"},
		"images of text":     {with(`"images":["x"]`), 400, CodeInvalidRequest, "images[0] must be an object"},
		"image number":       {with(`"images":[{"name":"a","image":1}]`), 400, CodeInvalidRequest, "images[0].image must be a string"},
		"too many images":    {with(`"images":[` + many + `]`), 422, CodeLimitExceeded, "more than 128"},
		"image missing":      {with(`"images":[{"name":"a.png"}]`), 400, CodeInvalidRequest, "give image"},
		"image and ref":      {with(`"images":[{"name":"a.png","ref":"x",` + png + `}]`), 400, CodeInvalidRequest, "not both"},
		"not base64":         {with(`"images":[{"name":"a.png","image":"a%b"}]`), 422, CodeInvalidInput, "base64"},
		"base64 of nothing":  {with(`"images":[{"name":"a.png","image":" ="}]`), 422, CodeInvalidInput, "empty"},
		"base64 cut":         {with(`"images":[{"name":"a.png","image":"aGVsb"}]`), 422, CodeInvalidInput, "base64"},
		"base64 joined":      {with(`"images":[{"name":"a.png","image":"aGVsbG8=aGVs"}]`), 422, CodeInvalidInput, "base64"},
		"data URI":           {with(`"images":[{"name":"a.png","image":"data:image/png,xx"}]`), 422, CodeInvalidInput, "data URI"},
		"twice the name":     {with(`"images":[{"name":"a",` + png + `},{"name":"a",` + png + `}]`), 422, CodeInvalidInput, "two files"},
		"file and folder":    {with(`"images":[{"name":"a",` + png + `},{"name":"a/b",` + png + `}]`), 422, CodeInvalidInput, "both a file and a folder"},
		"unknown ref":        {with(`"images":[{"name":"a","ref":"inputs/a/` + strings.Repeat("0", 64) + `"}]`), 422, CodeInvalidInput, "no uploaded file"},
		"ref elsewhere":      {with(`"images":[{"name":"a","ref":"outputs/x/../../etc/passwd"}]`), 422, CodeInvalidInput, "no uploaded file"},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			a := h.submit(c.body)
			h.requireError(a, c.status, c.code)
			require.Contains(t, a.body["error"], c.text)
		})
	}
	require.Empty(t, h.temporal.runs, "nothing was started")
}

func TestNames(t *testing.T) {
	for _, name := range []string{"a.png", "folder/a.png", "ä ö.png", "a b&c?.png", "x.png [1]", ".hidden", strings.Repeat("x", 200)} {
		require.Empty(t, nameProblem(name), name)
	}
	for _, name := range []string{
		"", ".", "..", "../a", "a/../b", "a/..", "/a", "a//b", "./a", "a/", `a\b`, `..\a`, "a\x00b", "a\nb", "comfyd", "comfyd/a",
		"x.png [output]", "x.png [input]", "x.png[temp]", strings.Repeat("x", 201), "a\uFFFDb",
	} {
		require.NotEmpty(t, nameProblem(name), name)
	}
}

func TestSubmitStoresInputs(t *testing.T) {
	h := newHarness(t)
	raw := []byte("\xfb\xff\xfehello, not a picture at all")
	std := base64.StdEncoding.EncodeToString(raw)
	forms := map[string]string{
		"std": std, "raw": strings.TrimRight(std, "="), "url": base64.URLEncoding.EncodeToString(raw),
		"lines": std[:10] + "\r\n" + std[10:] + "\n ", "uri": "data:image/png;base64," + std, "uri2": "DATA:application/octet-stream;name=x;BASE64," + std,
	}
	var fields []string
	for name, text := range forms {
		quoted, err := json.Marshal(text)
		require.NoError(t, err)
		fields = append(fields, fmt.Sprintf(`{"name":"dir/%s.png","image":%s}`, name, quoted))
	}
	a := h.submit(`{"workflow":` + graphJSON + `,"images":[` + strings.Join(fields, ",") + `]}`)
	require.Equal(t, 202, a.status, "%s", a.raw)
	run, err := h.temporal.get(a.body["id"].(string))
	require.NoError(t, err)
	require.Len(t, run.request.Images, len(forms))
	for _, in := range run.request.Images {
		require.Equal(t, "inputs/a/"+in.SHA256, in.Ref)
		require.Equal(t, raw, h.store.objects[in.Ref], in.Name)
		require.EqualValues(t, len(raw), in.Size)
	}
	require.Len(t, h.store.objects, 1, "kept once")
}

func TestSubmitMovesLargeGraphsToTheStore(t *testing.T) {
	h := newHarness(t)
	big := `{"1":{"class_type":"Text","inputs":{"text":"` + strings.Repeat("x", 5<<20) + `"}}}`
	a := h.submit(`{"workflow":` + big + `}`)
	require.Equal(t, 202, a.status, "%.200s", a.raw)
	run, err := h.temporal.get(a.body["id"].(string))
	require.NoError(t, err)
	require.Empty(t, run.request.Workflow)
	require.True(t, strings.HasPrefix(run.request.WorkflowRef, "graphs/a/"))
	require.JSONEq(t, big, string(h.store.objects[run.request.WorkflowRef]))
}

func TestSubmitUploadedInput(t *testing.T) {
	h := newHarness(t)
	up := h.do("POST", "/inputs?name=x.png", "bytes", "Content-Type", "image/png")
	require.Equal(t, 201, up.status, "%s", up.raw)
	body := fmt.Sprintf(`{"workflow":%s,"images":[{"name":"other/y.png","ref":%q}]}`, graphJSON, up.body["ref"])
	a := h.submit(body)
	require.Equal(t, 202, a.status, "%s", a.raw)
	run, err := h.temporal.get(a.body["id"].(string))
	require.NoError(t, err)
	require.Equal(t, []comfy.Input{{Name: "other/y.png", Ref: up.body["ref"].(string), SHA256: up.body["sha256"].(string), Size: 5}}, run.request.Images)

	a = h.submit(body, "Authorization", "Bearer "+keyB)
	h.requireError(a, 422, CodeInvalidInput)
	require.Contains(t, a.body["error"], "no uploaded file", "somebody else's is missing")
}

func TestSubmitRefusedByTheCatalogue(t *testing.T) {
	h := newHarness(t)
	h.catalogs.refuse.Store(&comfy.Failure{Code: comfy.InvalidWorkflow, Message: "unknown class", NodeErrors: comfy.NodeErrors{
		"1": {ClassType: "EmptyImag", Errors: []comfy.InputError{{Type: "unknown_class"}}, DependentOutputs: []string{"2"}},
	}})
	a := h.submit(`{"workflow":` + graphJSON + `}`)
	h.requireError(a, 400, CodeInvalidWorkflow)
	require.Contains(t, a.body["node_errors"], "1")
	require.Empty(t, h.temporal.runs)
}

func TestSubmitIdempotency(t *testing.T) {
	h := newHarness(t)
	h.setClock(time.Now()) // links are the same in each answer
	body := `{"workflow":` + graphJSON + `,"images":[{"name":"a.png","image":"aGVsbG8="}]}`
	first := h.submit(body, "Idempotency-Key", "k 1")
	require.Equal(t, 202, first.status, "%s", first.raw)
	require.Empty(t, first.header.Get("Idempotent-Replayed"))
	id := first.body["id"].(string)
	require.Equal(t, uuid.Version(5), uuid.MustParse(id).Version())

	// White space and the way the file is written are not the request.
	same := `{"images":[{"name":"a.png","image":"data:;base64,aGVsbG8"}],   "workflow":` + strings.ReplaceAll(graphJSON, ",", ", ") + `}`
	h.catalogs.refuse.Store(&comfy.Failure{Code: comfy.InvalidWorkflow, Message: "no longer known"})
	again := h.submit(same, "Idempotency-Key", "k 1")
	require.Equal(t, 202, again.status, "%s", again.raw)
	require.Equal(t, "true", again.header.Get("Idempotent-Replayed"))
	require.Equal(t, first.body, again.body)
	h.catalogs.refuse.Store(nil)

	h.requireError(h.submit(`{"workflow":`+graphJSON+`}`, "Idempotency-Key", "k 1"), 422, CodeIdempotencyKeyReuse)
	other := h.submit(body, "Idempotency-Key", "k 1", "Authorization", "Bearer "+keyB)
	require.Equal(t, 202, other.status)
	require.NotEqual(t, id, other.body["id"], "a key belongs to its tenant")

	for _, key := range []string{strings.Repeat("x", 256), "ä"} {
		h.requireError(h.submit(body, "Idempotency-Key", key), 400, CodeInvalidRequest)
	}
}

func TestSubmitSameKeyAtOnce(t *testing.T) {
	h := newHarness(t)
	var wg sync.WaitGroup
	ids := make([]string, 50)
	for i := range ids {
		wg.Go(func() {
			a := h.submit(`{"workflow":`+graphJSON+`}`, "Idempotency-Key", "k")
			if a.status == 202 {
				ids[i] = a.body["id"].(string)
			}
		})
	}
	wg.Wait()
	require.Len(t, slices.Compact(ids), 1)
	require.NotEmpty(t, ids[0])
	require.Len(t, h.temporal.runs, 1)
}

func TestSubmitWithoutTemporal(t *testing.T) {
	h := newHarness(t)
	for name, c := range map[string]struct {
		err    error
		status int
		code   Code
		retry  string
	}{
		"unreachable":  {serviceerror.NewUnavailable("connection refused 10.0.0.1"), 503, CodeUnavailable, "2"},
		"busy":         {serviceerror.NewResourceExhausted(enums.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT, "rps"), 429, CodeRateLimited, "2"},
		"too large":    {serviceerror.NewInvalidArgument("Blob data size exceeds limit."), 413, CodePayloadTooLarge, ""},
		"no namespace": {serviceerror.NewNotFound("Namespace x is not found."), 503, CodeUnavailable, "2"},
		"attribute":    {serviceerror.NewInvalidArgument("search attribute ComfyTenant is not defined"), 500, CodeInternal, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			h.temporal.startErr = c.err
			a := h.submit(`{"workflow":` + graphJSON + `}`)
			h.requireError(a, c.status, c.code)
			require.Equal(t, c.retry, a.header.Get("Retry-After"))
			require.NotContains(t, string(a.raw), c.err.Error())
		})
	}
}

func TestSubmitWithoutStore(t *testing.T) {
	h := newHarness(t)
	h.store.err = os.ErrPermission
	a := h.submit(`{"workflow":` + graphJSON + `,"images":[{"name":"a.png","image":"aGVsbG8="}]}`)
	h.requireError(a, 503, CodeStorage)
	require.Equal(t, "2", a.header.Get("Retry-After"))
	require.Empty(t, h.temporal.runs)
	h.requireError(h.submit(`{"workflow":`+graphJSON+`}`), 503, CodeStorage) // its outputs could not be kept
	require.Empty(t, h.temporal.runs)
}

func TestSubmitCorpus(t *testing.T) {
	h := newHarness(t)
	raw, err := os.ReadFile("../testdata/index.json")
	require.NoError(t, err)
	var index []struct {
		Name, File, Kind string
		Poison           bool
	}
	require.NoError(t, json.Unmarshal(raw, &index))
	require.NotEmpty(t, index)
	for _, entry := range index {
		t.Run(entry.Name, func(t *testing.T) {
			h.t = t
			graph, err := os.ReadFile(filepath.Join("../testdata", entry.File))
			require.NoError(t, err)
			a := h.submit(`{"workflow":` + string(graph) + `}`)
			switch {
			case entry.Kind == "ui":
				h.requireError(a, 503, CodeUnavailable) // nobody knows the nodes here
			case a.status != 202:
				h.requireError(a, 400, CodeInvalidWorkflow) // what structure alone tells; the rest is the catalogue's
			}
		})
	}
}
