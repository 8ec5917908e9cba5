package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gofiber/fiber/v2"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/comfy"
)

// States of a webhook beside the outcome of its last attempt.
const (
	webhookWaiting = "waiting" // for the job's end
	webhookPending = "pending" // an attempt is under way, or the next one stands at next_attempt_at
	webhookUnsent  = "unsent"  // Temporal itself has ended the job, so that its workflow could start none
)

// webhookLog is the answer of GET /jobs/{id}/webhook.
type webhookLog struct {
	ID            string           `json:"id"`
	State         string           `json:"state"`
	MessageID     string           `json:"message_id"`
	URL           string           `json:"url"`
	NextAttemptAt *time.Time       `json:"next_attempt_at,omitempty"`
	Attempts      []comfy.Delivery `json:"attempts"`
}

// checkWebhook refuses a receiver that could never be called.
func (s *Server) checkWebhook(address string) error {
	if address == "" {
		return nil
	}
	if err := s.opts.Webhooks.Check(address); err != nil {
		return failf(CodeInvalidWebhook, "webhook_url: %s.", err)
	}
	return nil
}

// webhook is GET /jobs/{id}/webhook.
func (s *Server) webhook(c *fiber.Ctx) error {
	_, log, err := s.ownWebhook(c)
	if err != nil {
		return err
	}
	return c.Status(http.StatusOK).JSON(log)
}

// replayWebhook is POST /jobs/{id}/webhook/replay: the same message once more, at once and then on its schedule. One that is
// under way gives way.
func (s *Server) replayWebhook(c *fiber.Ctx) error {
	j, log, err := s.ownWebhook(c)
	if err != nil {
		return err
	}
	if !j.ended() {
		return failf(CodeInvalidRequest, "The job has not ended yet; its webhook is sent when it does.")
	}
	earlier := log.Attempts[max(len(log.Attempts)-comfy.MaxDeliveries, 0):]
	in := comfy.Webhook{JobID: j.id, RunID: j.runID, URL: log.URL, Replay: true, Earlier: earlier}
	ctx, cancel := context.WithTimeout(s.life, startTimeout)
	defer cancel()
	_, err = s.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: comfy.WebhookWorkflowID(j.id), TaskQueue: comfy.TaskQueue,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING,
		Priority:                 temporal.Priority{FairnessKey: j.tenant},
		StaticSummary:            "replay: tell " + comfy.Literal(in.Host(), maxWebhookHost),
	}, comfy.WebhookWorkflowName, in)
	if err != nil {
		return temporalError(err)
	}
	log.State, log.NextAttemptAt = webhookPending, nil
	return c.Status(http.StatusAccepted).JSON(log)
}

// maxWebhookHost bounds what the Temporal UI shows of a receiver's name, in bytes.
const maxWebhookHost = 200

// webhookSecrets is the answer of GET /webhooks/secret.
type webhookSecrets struct {
	Secrets []string `json:"secrets"`
}

// webhookSecret is GET /webhooks/secret: what the tenant's receivers verify messages with.
func (s *Server) webhookSecret(c *fiber.Ctx) error {
	return c.Status(http.StatusOK).JSON(webhookSecrets{Secrets: s.opts.Webhooks.SecretsOf(about(c).tenant)})
}

// ownWebhook reads what became of the webhook of the job that a path names.
func (s *Server) ownWebhook(c *fiber.Ctx) (*job, *webhookLog, error) {
	j, err := s.ownJob(c)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(s.life, s.patience.read)
	defer cancel()
	request, err := s.givenTo(ctx, j)
	if err != nil {
		return nil, nil, err
	}
	if request.WebhookURL == "" {
		return nil, nil, failf(CodeNotFound, "This job has no webhook.")
	}
	about := comfy.Webhook{JobID: j.id, RunID: j.runID, URL: request.WebhookURL}
	log := &webhookLog{ID: j.id, State: webhookWaiting, MessageID: about.MessageID(), URL: about.URL, Attempts: []comfy.Delivery{}}
	if !j.ended() {
		return j, log, nil
	}
	return j, log, s.readDeliveries(ctx, j, log)
}
