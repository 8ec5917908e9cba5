package client_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakeapi"
)

func TestSubmitBatch(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	c := client.New(s.URL, "")
	s.Next("POST /batch", fakeapi.Answer(503, `{"error":"half","code":"unavailable"}`, "Retry-After: 0"),
		fakeapi.Answer(202, `{"batch_id":"b","jobs_url":"u","jobs":[{"id":"x","status":"RUNNING","seeds":{"3.seed":4294967295}}]}`, "Idempotent-Replayed: true"))
	b, err := c.SubmitBatch(t.Context(), client.BatchRequest{
		SubmitRequest: client.SubmitRequest{Workflow: json.RawMessage(`{"a":1.50}`), Priority: 2},
		Variations:    []map[string]any{{"3.seed": 1, "6.text": "a < b"}, {}},
	})
	require.NoError(t, err)
	require.Equal(t, client.Batch{ID: "b", JobsURL: "u", Replayed: true, Jobs: []client.BatchJob{
		{Job: client.Job{ID: "x", State: comfy.Running}, Seeds: map[string]uint64{"3.seed": 4294967295}},
	}}, b)
	calls := s.Calls("POST /batch")
	require.Len(t, calls, 2)
	require.NotEmpty(t, calls[0].Header.Get("Idempotency-Key"))
	require.Equal(t, calls[0].Header.Get("Idempotency-Key"), calls[1].Header.Get("Idempotency-Key"))
	require.Equal(t, `{"workflow":{"a":1.50},"priority":2,"variations":[{"3.seed":1,"6.text":"a < b"},{}]}`+"\n", string(calls[1].Body))

	s.Next("POST /batch", fakeapi.Answer(202, `{"id":"x"}`))
	_, err = c.SubmitBatch(t.Context(), client.BatchRequest{Seeds: 3})
	require.ErrorContains(t, err, "is not comfyd")
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	c := client.New(s.URL, "")
	offer := []client.Offer{{Name: "a", Pools: []string{"url"}}}
	list := `[{"name":"a","pools":["url"]}]`
	s.Next("GET /models/text encoders", fakeapi.Answer(200, `{"folder":"text encoders","models":`+list+`}`), fakeapi.Answer(404, `{"error":"no","code":"not_found"}`))
	one, err := c.ModelsIn(t.Context(), "text encoders")
	require.NoError(t, err)
	require.Equal(t, offer, one)
	_, err = c.ModelsIn(t.Context(), "text encoders")
	var refused *client.Error
	require.ErrorAs(t, err, &refused)
	s.Next("GET /models", fakeapi.Answer(200, `{"models":{"vae":`+list+`}}`), fakeapi.Answer(200, `{}`))
	all, err := c.Models(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string][]client.Offer{"vae": offer}, all)
	_, err = c.Models(t.Context())
	require.ErrorContains(t, err, "is not comfyd")
	s.Next("GET /nodes/A/B|c", fakeapi.Answer(200, `{"name":"A/B|c","pools":["url"],"definition":{"z":1,"a":2}}`))
	n, err := c.Node(t.Context(), "A/B|c")
	require.NoError(t, err)
	require.Equal(t, client.Node{Offer: client.Offer{Name: "A/B|c", Pools: []string{"url"}}, Definition: json.RawMessage(`{"z":1,"a":2}`)}, n)
	s.Next("GET /nodes", fakeapi.Answer(200, `{"nodes":`+list+`}`))
	nodes, err := c.Nodes(t.Context())
	require.NoError(t, err)
	require.Equal(t, offer, nodes)
}
