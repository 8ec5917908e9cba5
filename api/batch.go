package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/logs"
)

// batchNamespace is the root of the version 5 UUIDs of batches with an Idempotency-Key, apart from that of jobs: one key
// may serve for both. Changing it forgets all keys.
var batchNamespace = uuid.MustParse("0f6f7f0e-7e0a-4d53-9a4e-6a1c4f1f0c2d")

// startsAtOnce is how many jobs of a batch are started at a time.
const startsAtOnce = 8

// batch is several jobs of one workflow on their way to Temporal.
type batch struct {
	newJob  // what they have in common; its ID is the batch's
	changes []map[place]json.RawMessage
	digest  string
}

// acceptedBatch is the answer: the jobs in the order of the variations.
type acceptedBatch struct {
	BatchID string        `json:"batch_id"`
	JobsURL string        `json:"jobs_url"`
	Jobs    []acceptedOne `json:"jobs"`
}

type acceptedOne struct {
	accepted
	Seeds map[string]json.RawMessage `json:"seeds,omitempty"` // by "<node>.<input>", of a batch of seeds
}

// submitBatch is POST /batch. Nothing is started before every job has passed every check; then each is a job of its own.
func (s *Server) submitBatch(c *fiber.Ctx) error {
	if err := requireJSON(c); err != nil {
		return err
	}
	key, err := idempotencyKey(c)
	if err != nil {
		return err
	}
	b := &batch{newJob: newJob{tenant: about(c).tenant, key: key, base: s.base(c), from: about(c)}}
	b.id = batchID(b.tenant, key)
	leave, err := s.admit(b.tenant, key, b.jobID(0), 1)
	if err != nil {
		return err
	}
	leave(0)
	if err := s.readBatch(c, b); err != nil {
		return err
	}
	if leave, err = s.admit(b.tenant, key, b.jobID(0), len(b.changes)); err != nil {
		return err
	}
	replayed, sent, err := s.startBatch(b)
	leave(sent)
	if err != nil {
		return err
	}
	if replayed {
		c.Set(headerReplayed, "true")
	}
	answer := acceptedBatch{BatchID: b.id, JobsURL: s.url(c, "/jobs?metadata="+url.QueryEscape(comfy.BatchLabel+"="+b.id))}
	for i, changes := range b.changes {
		one := acceptedOne{accepted: s.accept(c, b.jobID(i))}
		if b.sub.batch.seeds > 0 {
			one.Seeds = map[string]json.RawMessage{}
			for at, value := range changes {
				one.Seeds[at.String()] = value
			}
		}
		answer.Jobs = append(answer.Jobs, one)
	}
	return c.Status(http.StatusAccepted).JSON(answer)
}

// batchID is random without a key.
func batchID(tenant, key string) string {
	if key == "" {
		return uuid.NewString()
	}
	return uuid.NewSHA1(uuid.NewSHA1(batchNamespace, []byte(tenant)), []byte(key)).String()
}

// jobID is the same each time, so that a batch is completed rather than begun anew.
func (b *batch) jobID(i int) string {
	return uuid.NewSHA1(uuid.MustParse(b.id), []byte(strconv.Itoa(i))).String()
}

func (s *Server) readBatch(c *fiber.Ctx, b *batch) (err error) {
	if b.sub, err = s.readSubmission(c, &batchFields{}); err != nil {
		return err
	}
	if b.graph, err = comfy.ParseGraph(b.sub.workflow); err != nil {
		return graphError(err)
	}
	b.sub.workflow = nil // as readWorkflow does
	jobs, err := b.sub.batch.jobs()
	if err != nil {
		return err
	}
	if size := int64(jobs) * int64(len(b.graph.JSON())); size > s.opts.BodyLimit {
		return failf(CodeLimitExceeded, "The graphs of %d jobs have %d bytes together; at most %d are allowed (COMFYD_BODY_LIMIT).", jobs, size, s.opts.BodyLimit)
	}
	labels := map[string]string{comfy.BatchLabel: b.id}
	maps.Copy(labels, b.sub.metadata)
	b.sub.metadata = labels
	if err := checkMetadata(labels); err != nil {
		return err
	}
	b.changes, err = b.sub.batch.changes(b.graph, b.id)
	return err
}

// startBatch checks all jobs, starts them, and says how many may be there now. It reports true where all were there
// already. A batch whose first job is there was accepted before: it is completed, whatever has changed since.
func (s *Server) startBatch(b *batch) (replayed bool, sent int, err error) {
	images, err := s.claimImages(b.tenant, b.sub.images)
	if err != nil {
		return false, 0, err
	}
	b.request = b.sub.request(images)
	if b.digest, err = b.digestOf(); err != nil {
		return false, 0, err
	}
	known := false
	if b.key != "" {
		if known, err = s.resumeBatch(b); err != nil {
			return false, 0, err
		}
	}
	if !known {
		if err := s.checkBatch(b); err != nil {
			return false, 0, err
		}
		if err := s.fetchImages(b.tenant, b.sub.images, b.request.Images, len(b.graph.JSON())+b.sub.batch.size()); err != nil {
			return false, 0, err
		}
	}
	return s.launchBatch(b)
}

// digestOf tells one batch from another: everything of the request, files at a URL by that.
func (b *batch) digestOf() (string, error) {
	raw, err := json.Marshal([]any{b.request, b.graph.Digest(), b.sub.batch.variations, b.sub.batch.seeds})
	if err != nil {
		return "", fmt.Errorf("encode the batch: %w", err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}

// memo is that of one job. Its digest is of the whole batch, so that no job of another one under the same key fits.
func (b *batch) memo(i int) comfy.Submission {
	sum := sha256.Sum256([]byte(b.digest + "\x00" + strconv.Itoa(i)))
	return comfy.Submission{Tenant: b.tenant, Digest: hex.EncodeToString(sum[:]), RequestID: b.from.id}
}

// resumeBatch reports true where the first job is there, from the same request, and takes over the files that were
// fetched for it: by now there may be others at their addresses, or none.
func (s *Server) resumeBatch(b *batch) (bool, error) {
	ctx, cancel := context.WithTimeout(b.from.in(s.life), startTimeout)
	defer cancel()
	found, err := s.replay(ctx, b.jobID(0), b.memo(0))
	if !found || err != nil {
		return false, err
	}
	first, err := s.requestOf(ctx, b.jobID(0), "")
	if err != nil {
		return false, err
	}
	b.request.Images = first.Images
	return true, nil
}

// checkBatch has every job pass what a single one would have to.
func (s *Server) checkBatch(b *batch) error {
	ctx, cancel := context.WithTimeout(b.from.in(s.life), startTimeout)
	defer cancel()
	for i := range b.changes {
		graph, err := b.variant(i)
		if err != nil {
			return err
		}
		if f := s.catalogs.Check(ctx, graph, inputNames(b.request.Images), backend.WantOf(&b.request)); f != nil {
			f := *f
			f.Message = b.ofJob(i, f.Message)
			return refusal(&f)
		}
	}
	return nil
}

// variant is the graph of one job.
func (b *batch) variant(i int) (*comfy.Graph, error) {
	graph, err := comfy.ParseGraph(b.graph.Rewrite(func(node, input string, _ json.RawMessage) json.RawMessage {
		return b.changes[i][place{node, input}]
	}, nil))
	if err != nil {
		err = graphError(err)
		var own *Error
		if errors.As(err, &own) {
			own.Message = b.ofJob(i, own.Message)
		}
	}
	return graph, err
}

// ofJob says which job of the batch a text is about; those of a batch of seeds are all alike.
func (b *batch) ofJob(i int, text string) string {
	if b.sub.batch.seeds > 0 {
		return text
	}
	return ofVariation(i, text)
}

func ofVariation(i int, text string) string { return fmt.Sprintf("variations[%d]: %s", i, text) }

// launchBatch starts the first job and then the rest, a few at a time. A start that fails leaves half a batch: with an
// Idempotency-Key the client completes it by sending the request again, without one what has started is taken back.
func (s *Server) launchBatch(b *batch) (replayed bool, sent int, err error) {
	started, found := make([]bool, len(b.changes)), make([]bool, len(b.changes))
	if found[0], started[0], err = s.launchOne(b, 0); err == nil {
		group, ctx := errgroup.WithContext(s.life)
		group.SetLimit(startsAtOnce)
		for i := 1; i < len(b.changes); i++ {
			group.Go(func() (err error) {
				if ctx.Err() == nil { // nothing has failed yet
					found[i], started[i], err = s.launchOne(b, i)
				}
				return err
			})
		}
		err = group.Wait()
	}
	for _, there := range started {
		if there {
			sent++
		}
	}
	if err != nil && sent > 0 {
		err = s.halfBatch(b, started, asError(err))
	}
	return err == nil && !slices.Contains(found, false), sent, err
}

// launchOne starts a job, or finds it; started says that it may be there although an error is returned.
func (s *Server) launchOne(b *batch, i int) (found, started bool, err error) {
	from := *b.from
	j := b.newJob
	j.id, j.from = b.jobID(i), &from
	from.callID = j.id
	if j.graph, err = b.variant(i); err != nil {
		return false, false, err
	}
	if err := s.claimGraph(&j); err != nil {
		return false, false, err
	}
	found, err = s.launch(&j, b.memo(i))
	return found, j.sent, err
}

// halfBatch words why only a part of a batch has started, and sees to it.
func (s *Server) halfBatch(b *batch, started []bool, err *Error) error {
	if b.key != "" {
		err.Message += " A part of the batch may have started: the same request with the same Idempotency-Key completes it."
		return err
	}
	for i, there := range started {
		if there {
			s.withdrawals.add(s, b.jobID(i), s.log.WithField(logs.CallID, b.jobID(i)), "its batch could not be started whole; it is canceled where it was")
		}
	}
	err.Message += " What may have started of the batch is canceled."
	return err
}
