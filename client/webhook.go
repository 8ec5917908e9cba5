package client

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/comfyd/comfyd/comfy"
)

// States of a [Webhook] beside the outcome of its last attempt, a [comfy.DeliveryOutcome].
const (
	WebhookWaiting = "waiting" // for the job's end
	WebhookPending = "pending" // an attempt is under way or to come
	WebhookUnsent  = "unsent"  // Temporal itself has ended the job; [Client.ReplayWebhook] sends it
)

// Webhook is what became of the message about a job's end.
type Webhook struct {
	ID    string `json:"id"` // the job's
	State string `json:"state"`
	// MessageID is the header webhook-id of every attempt.
	MessageID     string           `json:"message_id"`
	URL           string           `json:"url"`
	NextAttemptAt *time.Time       `json:"next_attempt_at,omitempty"`
	Attempts      []comfy.Delivery `json:"attempts"` // the oldest first
}

// Webhook asks what became of a job's webhook. A job without one is an *[Error] with HTTPStatus 404.
func (c *Client) Webhook(ctx context.Context, id string) (Webhook, error) {
	return c.webhook(ctx, request{method: http.MethodGet, path: job("jobs", id) + "/webhook"})
}

// ReplayWebhook has a job's webhook sent once more, under the same message ID.
func (c *Client) ReplayWebhook(ctx context.Context, id string) (Webhook, error) {
	return c.webhook(ctx, request{method: http.MethodPost, path: job("jobs", id) + "/webhook/replay"})
}

func (c *Client) webhook(ctx context.Context, r request) (w Webhook, err error) {
	if _, err := c.call(ctx, c.within(), r, &w); err != nil {
		return Webhook{}, err
	}
	if w.State == "" {
		return Webhook{}, errors.New("what answers at " + c.base.Redacted() + " is not comfyd: its answer has no state")
	}
	return w, nil
}

// WebhookSecrets are what messages to the key's tenant are verified with; each is signed with all of them.
func (c *Client) WebhookSecrets(ctx context.Context) ([]string, error) {
	var answer struct {
		Secrets []string `json:"secrets"`
	}
	if _, err := c.call(ctx, c.within(), request{method: http.MethodGet, path: "/webhooks/secret"}, &answer); err != nil {
		return nil, err
	}
	if len(answer.Secrets) == 0 {
		return nil, errors.New("what answers at " + c.base.Redacted() + " is not comfyd: its answer has no secrets")
	}
	return answer.Secrets, nil
}
