package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/visibility"
)

const (
	// claimCheck is the size in bytes above which a graph goes to the store instead of Temporal's history.
	claimCheck = 128 << 10
	// maxRequest is the largest comfy.Request; Temporal refuses payloads above 2 MiB.
	maxRequest = 1536 << 10
	// grace is what a job may take beside its wait and its run (collection, retries) before Temporal itself ends it.
	// The workflow's own timers end it long before; this is for the case that no worker is there to run them.
	grace = time.Hour

	storeTimeout = 2 * time.Minute
	startTimeout = 10 * time.Second
)

// submit is POST /submit_workflow.
func (s *Server) submit(c *fiber.Ctx) error {
	if err := requireJSON(c); err != nil {
		return err
	}
	key, err := idempotencyKey(c)
	if err != nil {
		return err
	}
	tenant := about(c).tenant
	id := jobID(tenant, key)
	about(c).callID = id
	leave, err := s.admit(tenant, key, id, 1) // before the body: it may be large
	if err != nil {
		return err
	}
	leave(0)
	sub, err := s.readSubmission(c, nil)
	if err != nil {
		return err
	}
	j := &newJob{id: id, tenant: tenant, key: key, base: s.base(c), sub: sub, from: about(c)}
	if err := j.readWorkflow(); err != nil {
		return err
	}
	if leave, err = s.admit(tenant, key, id, 1); err != nil {
		return err
	}
	sent := 0
	defer func() { leave(sent) }()
	replayed, err := s.start(j)
	if j.sent {
		sent = 1
	}
	if err != nil {
		return err
	}
	if replayed {
		c.Set(headerReplayed, "true")
	}
	return c.Status(http.StatusAccepted).JSON(s.accept(c, j.id))
}

// accepted is the 202 of a submission.
type accepted struct {
	ID        string      `json:"id"`
	Status    comfy.State `json:"status"`
	StatusURL string      `json:"status_url"`
	CancelURL string      `json:"cancel_url"`
	EventsURL string      `json:"events_url"`
}

func (s *Server) accept(c *fiber.Ctx, id string) accepted {
	return accepted{
		ID: id, Status: comfy.Running,
		StatusURL: s.url(c, "/status/"+url.PathEscape(id)), CancelURL: s.url(c, "/cancel/"+url.PathEscape(id)),
		EventsURL: s.eventsURL(s.base(c), about(c).tenant, id),
	}
}

// readSubmission reads the body and checks its fields, but for the workflow.
func (s *Server) readSubmission(c *fiber.Ctx, batch *batchFields) (*submission, error) {
	body := s.openBody(c, s.memory)
	defer body.close()
	sub, err := decodeSubmission(body, batch)
	if body.failure() != nil {
		err = body.failure()
	}
	if err != nil {
		return nil, err
	}
	if err := sub.check(int(s.opts.MaxRunTimeout / time.Second)); err != nil {
		return nil, err
	}
	return sub, s.checkWebhook(sub.webhookURL)
}

// newJob is a job on its way to Temporal.
type newJob struct {
	id, tenant, key string
	base            string // of the addresses that its client uses
	from            *request
	sub             *submission
	graph           *comfy.Graph
	saved           []byte        // the editor's save format instead, until it has been converted
	request         comfy.Request // its Images first: several jobs may share them
	// sent says that Temporal was asked to start it, and has not refused.
	sent bool
}

// start moves bytes to the store, asks whether any backend can run the job, and starts the workflow. It reports true
// when the job was there already, under the same Idempotency-Key and from the same request.
//
// It goes by the server's life rather than the request's: a client that leaves must not leave half a submission.
func (s *Server) start(j *newJob) (replayed bool, err error) {
	if j.request.Images, err = s.claimImages(j.tenant, j.sub.images); err != nil {
		return false, err
	}
	if err := s.claimGraph(j); err != nil {
		return false, err
	}
	digest, err := j.digest()
	if err != nil {
		return false, err
	}
	memo := comfy.Submission{Tenant: j.tenant, Digest: digest, RequestID: j.from.id}
	if replayed, err = s.look(j, memo); replayed || err != nil {
		return replayed, err
	}
	if err := s.fetchImages(j.tenant, j.sub.images, j.request.Images, len(j.graph.JSON())+len(j.saved)); err != nil {
		return false, err
	}
	return s.launch(j, memo)
}

// look reports true where the job is there already, and fails where no backend would run it.
func (s *Server) look(j *newJob, memo comfy.Submission) (replayed bool, err error) {
	ctx, cancel := context.WithTimeout(j.from.in(s.life), startTimeout)
	defer cancel()
	// A repeated request gets its first answer, even where the catalogue has changed since.
	if j.key != "" {
		if found, err := s.replay(ctx, j.id, memo); found || err != nil {
			return found, err
		}
	}
	if err := s.convert(ctx, j); err != nil {
		return false, err
	}
	if f := s.catalogs.Check(ctx, j.graph, inputNames(j.request.Images), backend.WantOf(&j.request)); f != nil {
		return false, refusal(f)
	}
	return false, nil
}

// launch starts the workflow. It reports true when the job was there already.
func (s *Server) launch(j *newJob, memo comfy.Submission) (replayed bool, err error) {
	// Not part of the digest: a repeated request is the same one after the settings, or this program, have changed.
	j.request.StartTimeoutSeconds, j.request.Revision = int(s.opts.StartTimeout/time.Second), comfy.Revision
	fill(&j.request.WebhookURL, s.opts.DefaultWebhooks[j.tenant])
	if j.request.WebhookURL != "" && s.opts.PublicURL == "" {
		memo.Address = j.base
	}
	ctx, cancel := context.WithTimeout(j.from.in(s.life), startTimeout)
	defer cancel()
	run, err := s.temporal.ExecuteWorkflow(ctx, s.startOptions(j, memo), comfy.WorkflowName, j.request)
	var already *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &already) {
		found, err := s.replay(ctx, j.id, memo)
		if err == nil && !found {
			err = failf(CodeUnavailable, "The job under this Idempotency-Key has just been forgotten. Try again.")
		}
		return found && j.key != "", err // without a key it can only be this request's own start
	}
	j.sent = err == nil || uncertain(err)
	if err != nil && j.sent {
		return false, s.unknownStart(j, memo, err)
	}
	if err != nil {
		e := temporalError(err)
		if e.Code == CodeNotFound { // the namespace is
			e = failf(CodeUnavailable, "Temporal does not know the namespace %q, which keeps the jobs.", s.opts.Namespace).because(err)
		}
		return false, e
	}
	s.started.add(&job{id: j.id, runID: run.GetRunID(), tenant: j.tenant, status: comfy.Status{State: comfy.Running}}, s.now(), s.now())
	return false, nil
}

// claimImages puts the files of a submission into the store.
func (s *Server) claimImages(tenant string, images []imageField) ([]comfy.Input, error) {
	ctx, cancel := context.WithTimeout(s.life, storeTimeout)
	defer cancel()
	return s.storeImages(ctx, tenant, images)
}

// claimGraph makes the workflow's input; a graph that does not belong into Temporal's history goes to the store.
func (s *Server) claimGraph(j *newJob) error {
	ctx, cancel := context.WithTimeout(s.life, storeTimeout)
	defer cancel()
	j.request = j.sub.request(j.request.Images)
	if j.graph == nil {
		return nil
	}
	if len(j.graph.JSON()) <= claimCheck {
		j.request.Workflow = j.graph.JSON()
		return nil
	}
	blob, err := s.store.PutHashed(ctx, comfy.GraphPrefix(j.tenant), bytes.NewReader(j.graph.JSON()))
	if err != nil {
		return storeError(err)
	}
	j.request.WorkflowRef = blob.Key
	return nil
}

// request is the workflow's input without the graph.
func (s *submission) request(images []comfy.Input) comfy.Request {
	return comfy.Request{
		Images: images, TimeoutSeconds: s.timeoutSeconds, Priority: s.priority, Backend: s.backend, GPU: s.gpu,
		Metadata: s.metadata, ExtraPNGInfo: s.extraPNGInfo, StripMetadata: s.stripMetadata, WebhookURL: s.webhookURL,
	}
}

// digestOf tells one request from another. Graph and files stand in it by content, files at a URL by that: what is there
// may change.
func digestOf(r *comfy.Request) (string, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode the request: %w", err)
	}
	if len(raw) > maxRequest {
		return "", failf(CodeLimitExceeded, "The job's fields beside the graph and the files have %d bytes together; at most %d are allowed.", len(raw), maxRequest)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}

func (s *Server) startOptions(j *newJob, memo comfy.Submission) client.StartWorkflowOptions {
	run := s.opts.RunTimeout
	if j.sub.timeoutSeconds > 0 {
		run = time.Duration(j.sub.timeoutSeconds) * time.Second
	}
	attributes := []temporal.SearchAttributeUpdate{
		temporal.NewSearchAttributeKeyKeyword(comfy.AttrTenant).ValueSet(j.tenant),
		temporal.NewSearchAttributeKeyKeywordList(comfy.AttrInputs).ValueSet(visibility.Marks(&j.request)),
	}
	if len(j.sub.metadata) > 0 {
		attributes = append(attributes, temporal.NewSearchAttributeKeyKeywordList(comfy.AttrMetadata).ValueSet(visibility.Labels(j.sub.metadata)))
	}
	seen := j.graph.Describe()
	return client.StartWorkflowOptions{
		ID:                       j.id,
		TaskQueue:                comfy.TaskQueue,
		WorkflowExecutionTimeout: s.opts.StartTimeout + run + grace,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		Memo:                     map[string]any{comfy.MemoSubmission: memo},
		TypedSearchAttributes:    temporal.NewSearchAttributes(attributes...),
		Priority:                 temporal.Priority{PriorityKey: j.sub.priority, FairnessKey: j.tenant},
		StaticSummary:            summary(j, seen),
		StaticDetails:            s.details(j, seen),
		EnableEagerStart:         s.opts.EagerStart,

		WorkflowExecutionErrorWhenAlreadyStarted: true,
	}
}

// jobID is random without a key. With one it is the same for the same tenant and key, in every replica.
func jobID(tenant, key string) string {
	if key == "" {
		return uuid.NewString()
	}
	return uuid.NewSHA1(uuid.NewSHA1(jobNamespace, []byte(tenant)), []byte(key)).String()
}
