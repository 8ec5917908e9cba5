package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/logs"
	"github.com/comfyd/comfyd/internal/visibility"
	"github.com/comfyd/comfyd/internal/webhook"
)

// errOpen says that a job has not ended yet, though its webhook is on its way.
var errOpen = errors.New("the job has not ended yet")

// message is the body of a webhook.
type message struct {
	Type      string          `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

// Deliver is the activity [comfy.ActivityDeliver]: one attempt to tell a receiver how a job has ended. It reads the end from
// Temporal, so that what is told is what every status says, with links that are new in each attempt. An error is no attempt.
func (s *Server) Deliver(ctx context.Context, in comfy.Webhook) (*comfy.Delivery, error) {
	log := s.log.WithField(logs.CallID, in.JobID).WithField("receiver", in.Host())
	d, err := s.deliver(ctx, in)
	if err != nil {
		log.WithError(err).Debug("a webhook has to wait")
		return nil, err
	}
	d.Replay = in.Replay
	log = log.WithField("outcome", d.Outcome).WithField("duration_ms", d.DurationMS)
	if d.Outcome == comfy.Delivered {
		log.Debug("a webhook is delivered")
	} else {
		log.Info("a webhook is not delivered: " + d.Error)
	}
	return d, nil
}

func (s *Server) deliver(ctx context.Context, in comfy.Webhook) (*comfy.Delivery, error) {
	j, err := s.endedRun(ctx, in.JobID, in.RunID)
	var own *Error
	switch {
	case errors.As(err, &own) && own.Code == CodeNotFound:
		return notSent(comfy.DeliveryForgotten, "the job was deleted, or its retention is over: there is nothing to tell"), nil
	case errors.As(err, &own):
		return nil, errors.New(own.Message) // its cause is the log's
	case err != nil:
		return nil, err
	}
	base := s.baseOf(j)
	if base == "" && j.status.State == comfy.Completed {
		return notSent(comfy.DeliveryRefused, "nobody has told comfyd where its links lead: set COMFYD_PUBLIC_URL, and replay it"), nil
	}
	if note := s.goneSince(ctx, j.tenant, in.URL); !in.Replay && note != nil {
		return notSent(comfy.DeliveryGone, fmt.Sprintf("the receiver wants no more messages: it answered 410 at %s. A replay tries it all the same", note.UTC().Format(time.RFC3339))), nil
	}
	body, err := s.messageOf(ctx, j, base)
	if err != nil {
		return nil, err
	}
	d, err := s.opts.Webhooks.Send(ctx, webhook.Message{Tenant: j.tenant, URL: in.URL, ID: in.MessageID(), Body: body})
	if err != nil {
		return nil, err
	}
	s.noteGone(ctx, j.tenant, in.URL, d.Outcome, in.Replay)
	return d, nil
}

func notSent(outcome comfy.DeliveryOutcome, why string) *comfy.Delivery {
	return &comfy.Delivery{At: time.Now().UTC(), Outcome: outcome, Error: why}
}

// endedRun reads the end of one run of a job. Whoever has its ID now does not matter.
func (s *Server) endedRun(ctx context.Context, id, runID string) (*job, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience.read)
	defer cancel()
	described, err := s.temporal.DescribeWorkflowExecution(ctx, id, runID)
	if err != nil {
		return nil, temporalError(err)
	}
	j := s.jobOf(described.GetWorkflowExecutionInfo())
	switch {
	case j.unreadable != nil:
		return nil, j.unreadable
	case visibility.IsOpen(described.GetWorkflowExecutionInfo().GetStatus()):
		return nil, errOpen
	case s.isDeleted(ctx, id, j.runID):
		return nil, notFound()
	}
	return j, s.readEnd(j, described.GetWorkflowExecutionInfo(), s.outcome(ctx, id, j.runID))
}

// baseOf begins a message's links: empty where nobody knows.
func (s *Server) baseOf(j *job) string {
	for _, base := range []string{s.opts.PublicURL, j.address, s.opts.LinkURL} {
		if base != "" {
			return strings.TrimSuffix(base, "/")
		}
	}
	return ""
}

// messageOf is the terminal status, as GET /status?output=url has it, in its envelope.
func (s *Server) messageOf(ctx context.Context, j *job, base string) ([]byte, error) {
	m := message{Type: "job.completed", Timestamp: *j.status.EndedAt}
	var err error
	if j.status.State == comfy.Completed {
		m.Data, err = s.linkedResult(ctx, j, base)
	} else {
		m.Type = "job.failed"
		if j.status.Failure.Code == comfy.Canceled {
			m.Type = "job.canceled"
		}
		m.Data, err = json.Marshal(failedBody(&j.status))
	}
	if err != nil {
		return nil, fmt.Errorf("writing the message: %w", err)
	}
	return json.Marshal(m)
}

// linkedResult is a completed job's answer with links in place of bytes.
func (s *Server) linkedResult(ctx context.Context, j *job, base string) (_ []byte, err error) {
	to := &stream{store: s.store, log: s.log}
	to.ctx, to.cancel = context.WithTimeout(ctx, checkTimeout)
	body, err := s.composeResult(to.ctx, to, base, j, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	return io.ReadAll(body)
}

func goneKey(tenant, url string) string {
	return comfy.WebhookNotes + tenant + "/" + fmt.Sprintf("%x", sha256.Sum256([]byte(url)))
}

// goneSince is when a receiver has said that it wants no more messages; nil where it has not, or where the store does not
// answer: then it may say so again.
func (s *Server) goneSince(ctx context.Context, tenant, url string) *time.Time {
	ctx, cancel := context.WithTimeout(ctx, s.patience.note)
	defer cancel()
	note, err := s.store.Stat(ctx, goneKey(tenant, url))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.WithError(err).Debug("cannot tell whether a webhook's receiver wants messages")
		}
		return nil
	}
	if s.now().Sub(note.Modified) > comfy.WebhookNotesLast {
		return nil
	}
	return &note.Modified
}

// noteGone remembers a receiver that wants no more messages, and forgets that when a replay has reached it.
func (s *Server) noteGone(ctx context.Context, tenant, url string, outcome comfy.DeliveryOutcome, replay bool) {
	var err error
	switch {
	case outcome == comfy.DeliveryGone:
		_, err = s.store.Put(ctx, goneKey(tenant, url), bytes.NewReader(nil))
	case outcome == comfy.Delivered && replay:
		err = s.store.Delete(ctx, goneKey(tenant, url))
	}
	if err != nil {
		s.log.WithError(err).Warn("cannot note whether a webhook's receiver wants messages")
	}
}
