package app_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/proxy"
	workflowpb "go.temporal.io/api/workflow/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakecomfy"
)

// record is all that Temporal keeps of a job: description and history as JSON, and each payload as it is.
type record struct {
	text     string
	payloads []*commonpb.Payload
}

func (d *double) record(id string) (r record) {
	d.t.Helper()
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	c := d.temporal()
	info, err := c.DescribeWorkflowExecution(ctx, id, "")
	require.NoError(d.t, err)
	for _, m := range []proto.Message{info, fetch(d.t, c, id)} {
		raw, err := protojson.Marshal(m)
		require.NoError(d.t, err)
		r.text += string(raw) + "\n"
		require.NoError(d.t, proxy.VisitPayloads(ctx, m, proxy.VisitPayloadsOptions{
			SkipSearchAttributes: true,
			Visitor: func(_ *proxy.VisitPayloadsContext, all []*commonpb.Payload) ([]*commonpb.Payload, error) {
				for _, p := range all {
					r.payloads = append(r.payloads, p)
					r.text += fmt.Sprintf("%s %s\n", p.GetMetadata()["encoding"], p.GetData())
				}
				return all, nil
			},
		}))
	}
	return r
}

// TestHistoryHoldsNoBytes: jobs of all kinds, with images, keys, signed links and large graphs; then everything that
// Temporal keeps is searched for what must not be there.
func TestHistoryHoldsNoBytes(t *testing.T) {
	s := fakecomfy.New(t)
	s.Login("operator", "a-password-of-comfyui")
	at, err := url.Parse(s.URL)
	require.NoError(t, err)
	at.User = url.UserPassword("operator", "a-password-of-comfyui")
	d := onServer(t, s, map[string]string{"COMFYUI_URLS": at.String()})
	d.comfy.Step(2 * time.Millisecond)
	pixel := onePixel(t)
	links := map[string]any{}
	for name, body := range map[string]map[string]any{
		"with an input":      withFile(t, "input"),
		"with a data URI":    {"workflow": withFile(t, "uri")["workflow"], "images": []any{map[string]any{"name": "in.png", "image": "data:image/png;base64," + base64.StdEncoding.EncodeToString(pixel)}}},
		"a large graph":      {"workflow": large(7)},
		"frames by a socket": {"workflow": json.RawMessage(`{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":48,"batch_size":3,"color":9}},"2":{"class_type":"SaveImageWebsocket","inputs":{"images":["1",0]}}}`)},
		"a long text":        {"workflow": json.RawMessage(`{"1":{"class_type":"PreviewAny","inputs":{"source":"` + strings.Repeat("long ", 30_000) + `"}}}`)},
	} {
		id := d.submit(body)
		require.Equal(t, "COMPLETED", d.finish(id)["status"], name)
		links[id] = d.do("GET", "/status/"+id+"?output=url", nil).body
	}
	d.comfy.FailNode("EmptyImage", "RuntimeError", "Traceback (most recent call last):\n  File \"/srv/secret/nodes.py\", line 3, in f\n    boom()\ncannot read /srv/secret/model.safetensors")
	d.finish(d.submit(map[string]any{"workflow": graph(8, "fails")}))
	d.comfy.FailNode("EmptyImage", "", "")
	running := d.submit(map[string]any{"workflow": ticking(1)})
	d.until(running, "running")

	var list []*workflowpb.WorkflowExecutionInfo
	require.Eventually(t, func() bool { // lists come a little later than what they list
		list = d.executions("WorkflowType = '" + comfy.WorkflowName + "'")
		return len(list) == 7
	}, 2*time.Minute, 50*time.Millisecond)
	raw, err := json.Marshal(links)
	require.NoError(t, err)
	require.Contains(t, string(raw), "signature=")
	for _, e := range list {
		r := d.record(e.GetExecution().GetWorkflowId())
		for _, p := range r.payloads {
			require.Equal(t, "json/plain", string(p.GetMetadata()["encoding"]), "a person can read it")
			require.Less(t, len(p.GetData()), 132<<10)
		}
		for _, secret := range []string{secret, other, "a-password-of-comfyui", "0123456789abcdef0123456789abcdef", "signature=", "Bearer", "/srv/secret", "nodes.py"} {
			require.NotContains(t, r.text, secret)
		}
		require.NotContains(t, r.text, string(pixel))
		require.NotContains(t, r.text, base64.StdEncoding.EncodeToString(pixel)[:40])
		require.NotContains(t, r.text, "\x89PNG")
		require.NotContains(t, r.text, "base64,")
		require.NotContains(t, r.text, strings.Repeat("long ", 1000))
		require.False(t, bytes.Contains([]byte(r.text), []byte("iVBORw0KGgo")), "the beginning of any PNG in base64")
	}
	d.do("POST", "/cancel/"+running, nil)
	d.finish(running)
}
