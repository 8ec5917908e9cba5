package client_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/client"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/fakeapi"
)

func TestWebhook(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	log := `{"id":"job-1","state":"pending","message_id":"msg_1","url":"https://example.com/hook","next_attempt_at":"2026-11-30T12:00:05Z",
		"attempts":[{"at":"2026-11-30T12:00:00Z","outcome":"failed","http_status":500,"duration_ms":7,"error":"HTTP 500","answer":"oh no"}]}`
	s.Next("GET /jobs/job-1/webhook", fakeapi.Break, fakeapi.Answer(200, log))
	s.Next("POST /jobs/job-1/webhook/replay", fakeapi.Answer(202, log))
	s.Next("GET /webhooks/secret", fakeapi.Answer(200, `{"secrets":["whsec_a","whsec_b"]}`), fakeapi.Answer(200, `{}`))
	c := client.New(s.URL, "")
	for _, call := range []func() (client.Webhook, error){
		func() (client.Webhook, error) { return c.Webhook(t.Context(), "job-1") },
		func() (client.Webhook, error) { return c.ReplayWebhook(t.Context(), "job-1") },
	} {
		w, err := call()
		require.NoError(t, err)
		require.Equal(t, client.WebhookPending, w.State)
		require.Equal(t, 5, w.NextAttemptAt.Second())
		require.Len(t, w.Attempts, 1)
		require.Equal(t, comfy.DeliveryFailed, w.Attempts[0].Outcome)
		require.Equal(t, "oh no", w.Attempts[0].Answer)
	}
	secrets, err := c.WebhookSecrets(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"whsec_a", "whsec_b"}, secrets)
	_, err = c.WebhookSecrets(t.Context())
	require.ErrorContains(t, err, "not comfyd")
	_, err = c.Webhook(t.Context(), "job-2")
	var refused *client.Error
	require.True(t, errors.As(err, &refused))
	require.Equal(t, 404, refused.HTTPStatus)
}
