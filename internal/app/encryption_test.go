package app_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/app"
	"github.com/comfyd/comfyd/internal/codec"
	"github.com/comfyd/comfyd/internal/config"
)

const (
	keyA = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	keyB = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
)

// again starts comfyd anew on the same data, with other keys.
func (d *double) again(vars map[string]string) {
	d.t.Helper()
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	d.app.Stop(ctx)
	all := map[string]string{"COMFYD_DATA_DIR": filepath.Dir(d.blobs), "COMFYUI_URLS": d.comfy.URL}
	for k, v := range vars {
		all[k] = v
	}
	d.api = start(d.t, all)
	d.ready()
}

// whispered is a submission in which everything that a client writes holds one word.
func whispered(t *testing.T, color int) map[string]any {
	body := withFile(t, "walrus")
	body["workflow"] = json.RawMessage(bytes.Replace(graph(color, "walrus"), []byte(`"width"`), []byte(`"prompt":"a walrus","width"`), 1))
	body["images"].([]any)[0].(map[string]any)["name"] = "walrus.png"
	body["extra_pnginfo"] = map[string]any{"workflow": map[string]any{"note": "walrus"}}
	return body
}

// TestEncryption: keys are added, changed and taken away while jobs are open and remembered.
func TestEncryption(t *testing.T) {
	d := onDouble(t, nil)
	d.comfy.Step(2 * time.Millisecond)
	before := d.submit(whispered(t, 121), "Idempotency-Key", "before")
	d.finish(before)
	require.Contains(t, d.record(before).text, "walrus", "without keys the history is plain")
	gate := d.comfy.Hold("EmptyImage")
	open := d.submit(whispered(t, 122))
	gate.Reached()
	d.again(map[string]string{"COMFYD_PAYLOAD_KEYS": "a:" + keyA})
	gate.Open()
	require.Equal(t, "COMPLETED", d.finish(open)["status"], "a job from before goes on")
	require.Equal(t, "COMPLETED", d.finish(before)["status"])
	r := d.do("POST", "/submit_workflow", whispered(t, 121), "Idempotency-Key", "before")
	require.Equal(t, "true", r.header.Get("Idempotent-Replayed"), "%v", r.body)

	// Everything that reads goes through the codec: heartbeats, results, failures, memos, inputs.
	running := d.submit(map[string]any{"workflow": ticking(1)})
	require.Eventually(t, func() bool {
		p, _ := d.do("GET", "/status/"+running, nil).body["progress"].(map[string]any)
		return p["current_node"] == "3"
	}, 2*time.Minute, 20*time.Millisecond)
	require.NotContains(t, d.record(running).text, "prompt_id", "the heartbeat")
	d.do("POST", "/cancel/"+running, nil)
	require.Equal(t, "canceled", d.finish(running)["code"])
	good := d.submit(whispered(t, 123), "Idempotency-Key", "good")
	require.Len(t, outputs(t, d.finish(good)), 1)
	require.Equal(t, "true", d.do("POST", "/submit_workflow", whispered(t, 123), "Idempotency-Key", "good").header.Get("Idempotent-Replayed"))
	d.comfy.FailNode("EmptyImage", "ValueError", "no walrus here")
	failed := d.submit(whispered(t, 124))
	require.Contains(t, d.finish(failed)["error"], "no walrus here")
	d.comfy.FailNode("EmptyImage", "", "")
	for _, id := range []string{good, failed} {
		record := d.record(id)
		require.NotContains(t, record.text, "walrus")
		require.Contains(t, record.text, "binary/encrypted")
		for _, p := range record.payloads { // but for the header that follows a request
			require.True(t, string(p.GetMetadata()["encoding"]) == "binary/encrypted" || bytes.HasPrefix(p.GetData(), []byte(`{"request_id":`)), "%s", p)
		}
	}
	require.Contains(t, d.record(failed).text, `"node_failed"`)
	require.Contains(t, fmt.Sprint(d.do("GET", "/jobs", nil).body), good)

	// The embedded UI's codec server; other pages may not ask it.
	info, err := d.temporal().DescribeWorkflowExecution(t.Context(), good, "")
	require.NoError(t, err)
	remote := func(origin string) error {
		return converter.NewRemoteDataConverter(converter.GetDefaultDataConverter(), converter.RemoteDataConverterOptions{
			Endpoint: "http://" + d.app.TemporalUI + "/codec", ModifyRequest: func(r *http.Request) error { r.Header.Set("Origin", origin); return nil },
		}).FromPayload(info.GetExecutionConfig().GetUserMetadata().GetSummary(), new(string))
	}
	require.NoError(t, remote("http://"+d.app.TemporalUI))
	require.Error(t, remote("http://elsewhere.example.com"))

	// Another key writes; the older one reads on.
	d.again(map[string]string{"COMFYD_PAYLOAD_KEYS": "b:" + keyB + ",a:" + keyA})
	require.Equal(t, "COMPLETED", d.finish(good)["status"])
	newer := d.submit(whispered(t, 125))
	d.finish(newer)
	require.Contains(t, d.record(newer).text, base64.StdEncoding.EncodeToString([]byte("b")))

	// The older key is gone, and so is what it says; nobody takes the job for his own.
	d.again(map[string]string{"COMFYD_PAYLOAD_KEYS": "plain,b:" + keyB})
	require.Equal(t, "COMPLETED", d.finish(newer)["status"])
	require.Equal(t, "COMPLETED", d.finish(before)["status"])
	require.Equal(t, 500, d.do("GET", "/status/"+good, nil).code)
	bob := *d.api
	bob.key = other
	require.Equal(t, 404, bob.do("GET", "/status/"+good, nil).code)
	require.Equal(t, 500, d.do("POST", "/submit_workflow", whispered(t, 123), "Idempotency-Key", "good").code)
	require.Contains(t, fmt.Sprint(d.do("GET", "/jobs", nil).body), good)
	plain := d.submit(whispered(t, 126))
	d.finish(plain)
	require.Contains(t, d.record(plain).text, "walrus")
	require.Equal(t, 204, d.do("DELETE", "/jobs/"+newer, nil).code)
}

// TestReplayOfEncryptedJobs: `comfyd temporal replay` reads with the keys what lies in Temporal.
func TestReplayOfEncryptedJobs(t *testing.T) {
	keys := "a:" + keyA
	d := onDouble(t, map[string]string{"COMFYD_PAYLOAD_KEYS": keys})
	d.finish(d.submit(whispered(t, 127)))
	d.comfy.FailNode("EmptyImage", "ValueError", "no walrus here")
	d.finish(d.submit(whispered(t, 128)))
	t.Setenv("TEMPORAL_ADDRESS", d.app.TemporalAddress)
	t.Setenv("COMFYD_PAYLOAD_KEYS", keys)
	c, err := config.ReadTemporalPayloads()
	require.NoError(t, err)
	replay := func() (said string, err error) {
		var out strings.Builder
		log, _ := logtest.NewNullLogger()
		err = app.ReplayJobs(t.Context(), c, app.Replay{Query: "WorkflowType = '" + comfy.WorkflowName + "'", Out: &out, Log: log})
		return out.String(), err
	}
	var said string
	require.Eventually(t, func() bool {
		said, err = replay()
		return err == nil && strings.Contains(said, "2 of 2 histories")
	}, 2*time.Minute, 100*time.Millisecond, "%s", said)
	c.Payload = nil
	said, err = replay()
	require.ErrorIs(t, err, app.ErrDiverges, said)
}

// TestAWorkerWithoutTheKey keeps a job waiting for one that has it.
func TestAWorkerWithoutTheKey(t *testing.T) {
	d := onDouble(t, nil)
	sealed, err := codec.New([]codec.Key{{ID: "a", Secret: make([]byte, 32)}}, false)
	require.NoError(t, err)
	c, err := client.Dial(sealed.For(client.Options{HostPort: d.app.TemporalAddress}))
	require.NoError(t, err)
	defer c.Close()
	_, err = c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "sealed", TaskQueue: comfy.TaskQueue}, comfy.WorkflowName, comfy.Request{Workflow: graph(131, "sealed")})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(fetch(t, c, "sealed").GetEvents(), func(e *history.HistoryEvent) bool {
			require.NotEqual(t, enums.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED, e.GetEventType())
			return e.GetEventType() == enums.EVENT_TYPE_WORKFLOW_TASK_FAILED
		})
	}, 2*time.Minute, 50*time.Millisecond, "a step fails, and not the job")
	d.again(map[string]string{"COMFYD_PAYLOAD_KEYS": "a:" + keyA})
	require.Equal(t, "COMPLETED", d.finish("sealed")["status"])
}
