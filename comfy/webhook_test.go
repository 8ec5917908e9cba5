package comfy

import (
	"regexp"
	"strings"
	"testing"
)

func TestMessageID(t *testing.T) {
	one := Webhook{JobID: "a.b", RunID: "r"}
	again := Webhook{JobID: "a.b", RunID: "r", URL: "https://x", Replay: true, Earlier: []Delivery{{}}}
	other := Webhook{JobID: "a.b", RunID: "r2"}
	if id := one.MessageID(); !regexp.MustCompile(`^msg_[0-9a-f]{32}$`).MatchString(id) || id != again.MessageID() || id == other.MessageID() {
		t.Errorf("%s, again %s, of another run %s", id, again.MessageID(), other.MessageID())
	}
	if id := WebhookWorkflowID(strings.Repeat("x", 1000)); len(id) > 100 {
		t.Errorf("an ID of %d bytes", len(id))
	}
	for address, host := range map[string]string{
		"https://example.com:8443/hook?a=b@c": "example.com:8443", "http://me:secret@[::1]:9?x": "[::1]:9", "https://a#b": "a", "": "", "nothing": "",
	} {
		if w := (Webhook{URL: address}); w.Host() != host {
			t.Errorf("%s: %s", address, w.Host())
		}
	}
	if WebhookWorkflowID("x") != "webhook/x" {
		t.Error(WebhookWorkflowID("x"))
	}
}

func TestCheckWebhook(t *testing.T) {
	for address, good := range map[string]bool{
		"": true, "https://example.com/hook": true, "http://10.0.0.1:9000/": true,
		"example.com": false, "ftp://example.com/": false, "https://": false, "https:///x": false, "https://example.com/" + strings.Repeat("x", 2048): false,
	} {
		r := Request{WorkflowRef: "graphs/x", WebhookURL: address}
		if err := r.Check(); (err == nil) != good {
			t.Errorf("%.40s: %v", address, err)
		}
	}
}
