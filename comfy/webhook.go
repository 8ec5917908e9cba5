package comfy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Names of webhooks in Temporal.
const (
	// WebhookWorkflowName is the type of the workflow that tells a receiver how a job has ended. It takes a [Webhook] and
	// returns the [Delivery] that has succeeded.
	WebhookWorkflowName = "ComfyUIWebhook"
	// WebhookTaskQueue is where they are posted from: by the processes of the API, which sign links and messages.
	WebhookTaskQueue = "comfyui-webhooks"
	// ActivityDeliver is one attempt.
	ActivityDeliver = "Deliver"
)

const (
	// MaxWebhookURL bounds the address of a receiver, in bytes.
	MaxWebhookURL = 2048
	// WebhookNotes is where it is noted, by tenant and address, that a receiver wants no more messages, and WebhookNotesLast
	// how long such a note holds.
	WebhookNotes     = "webhooks/"
	WebhookNotesLast = 7 * 24 * time.Hour
	// MaxDeliveries bounds the attempts of earlier runs that a [Webhook] remembers.
	MaxDeliveries = 50
	maxPlainJobID = 900 // Temporal takes IDs of 1,000 bytes
)

// Webhook is the input of [WebhookWorkflowName]: a job that has ended, or is about to, and who is told.
type Webhook struct {
	JobID string `json:"job_id"`
	// RunID is the run that the message is about: the job's ID may belong to another one by the time of an attempt.
	RunID string `json:"run_id"`
	URL   string `json:"url"`
	// Replay says that a person has asked for it again.
	Replay bool `json:"replay,omitempty"`
	// Earlier are the attempts of runs before a replay, the oldest first.
	Earlier []Delivery `json:"earlier,omitempty"`
}

// WebhookWorkflowID is the ID of the workflow that delivers a job's webhook.
func WebhookWorkflowID(jobID string) string {
	if len(jobID) > maxPlainJobID {
		jobID = fmt.Sprintf("~%x", sha256.Sum256([]byte(jobID)))
	}
	return "webhook/" + jobID
}

// MessageID is the header webhook-id: the same in every attempt and every replay, so that a receiver can tell a message
// that it has had already.
func (w *Webhook) MessageID() string {
	return fmt.Sprintf("msg_%x", sha256.Sum256([]byte(w.JobID+"\x00"+w.RunID)))[:36]
}

// Host is whom the message goes to, as a log may have it: the rest of an address is often a secret.
func (w *Webhook) Host() string { return hostOf(w.URL) }

// hostOf is for workflow code, too, where [net/url] has no place: what that takes depends on Go's version.
func hostOf(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return rest[strings.LastIndex(rest, "@")+1:]
}

// DeliveryOutcome says what became of an attempt.
type DeliveryOutcome string

const (
	// Delivered: the receiver answered 2xx.
	Delivered DeliveryOutcome = "delivered"
	// DeliveryFailed: it answered something else or nothing; the next attempt may do better.
	DeliveryFailed DeliveryOutcome = "failed"
	// DeliveryGone: it answered 410, and wants no more messages.
	DeliveryGone DeliveryOutcome = "gone"
	// DeliveryRefused: the address may not be called.
	DeliveryRefused DeliveryOutcome = "refused"
	// DeliveryForgotten: the job was deleted, or its retention is over, so that there is nothing to tell.
	DeliveryForgotten DeliveryOutcome = "forgotten"
)

// Delivery is one attempt.
type Delivery struct {
	At         time.Time       `json:"at"`
	Outcome    DeliveryOutcome `json:"outcome"`
	HTTPStatus int             `json:"http_status,omitempty"`
	DurationMS int64           `json:"duration_ms"`
	// Error says why it has not succeeded.
	Error string `json:"error,omitempty"`
	// Answer is the beginning of the answer's body.
	Answer string `json:"answer,omitempty"`
	// RetryAfterSeconds is the pause that the receiver has asked for.
	RetryAfterSeconds int `json:"retry_after_seconds,omitempty"`
	// Replay says that it belongs to a replay.
	Replay bool `json:"replay,omitempty"`
}

// checkWebhook tells what is wrong with an address, as far as its text shows.
func checkWebhook(address string) error {
	if address == "" {
		return nil
	}
	scheme, _, _ := strings.Cut(address, "://")
	switch {
	case len(address) > MaxWebhookURL:
		return fmt.Errorf("webhook_url has %d bytes; at most %d are allowed", len(address), MaxWebhookURL)
	case scheme != "https" && scheme != "http" || hostOf(address) == "":
		return errors.New("webhook_url is not an address such as https://example.com/hook")
	}
	return nil
}
