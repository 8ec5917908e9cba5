package cli

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakeapi"
)

func TestWebhooks(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	log := `{"id":"job-1","state":"pending","message_id":"msg_1","url":"https://example.com/hook","next_attempt_at":"2026-11-30T12:00:05Z",
		"attempts":[{"at":"2026-11-30T12:00:00Z","outcome":"failed","http_status":500,"duration_ms":7,"error":"HTTP 500","answer":"oh\n\u001b[31mno"},
		{"at":"2026-11-30T12:00:01Z","outcome":"delivered","http_status":204,"duration_ms":1234,"replay":true}]}`
	s.Next("GET /jobs/job-1/webhook", fakeapi.Answer(200, log), fakeapi.Answer(200, log))
	sh := newShell(t, s)
	require.Equal(t, 0, sh.run("webhooks", "log", "job-1"), sh.err.String())
	require.Regexp(t, `^pending  msg_1  https://example.com/hook
2026-\d\d-\d\d \d\d:00:00  failed         7 ms  HTTP 500: oh  \[31mno
2026-\d\d-\d\d \d\d:00:01  delivered   1234 ms  HTTP 204 \(replay\)
the next attempt is at 2026-\d\d-\d\d \d\d:00:05
$`, sh.out.String())
	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("webhooks", "log", "job-1", "--json"))
	require.Contains(t, sh.out.String(), `"message_id":"msg_1"`)

	s.Next("POST /jobs/job-1/webhook/replay", fakeapi.Answer(202, log))
	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("webhooks", "replay", "job-1"))
	require.Equal(t, "msg_1 is on its way to https://example.com/hook; see: comfyd webhooks log job-1\n", sh.out.String())

	s.Next("GET /webhooks/secret", fakeapi.Answer(200, `{"secrets":["whsec_a","whsec_b"]}`))
	sh = newShell(t, s)
	require.Equal(t, 0, sh.run("webhooks", "secret"))
	require.Equal(t, "whsec_a\nwhsec_b\n", sh.out.String())

	sh = newShell(t, s)
	require.Equal(t, 2, sh.run("webhooks", "log", "job-2"), "a job without one")
	require.Equal(t, 2, newShell(t, s).run("webhooks", "rotate"))
	require.Equal(t, 2, newShell(t, s).run("webhooks", "log"))

	sh = newShell(t, s)
	sh.in = strings.NewReader(workflow)
	require.Equal(t, 0, sh.run("submit", "-", "--no-wait", "--webhook", "https://example.com/hook"), sh.err.String())
	require.Contains(t, string(s.Calls("POST /submit_workflow")[0].Body), `"webhook_url":"https://example.com/hook"`)
}
