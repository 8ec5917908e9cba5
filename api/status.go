package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/comfyd/comfyd/comfy"
)

const (
	maxWait = 60 * time.Second
	// longPoll is how long Temporal is trusted to tell of an end: its server drops some of these messages (two changes
	// close together, seen with 1.32.1), and asks again by itself only after 20 s.
	longPoll = 5 * time.Second
	// maxWaiters is how many requests may wait for an end at a time; each holds one long poll at Temporal. Those above
	// are answered at once, as if they had not asked to wait.
	maxWaiters = 512
)

// status is GET /status/{id} and GET /jobs/{id}.
func (s *Server) status(c *fiber.Ctx) error {
	links, err := wantsLinks(c)
	if err != nil {
		return err
	}
	wait, err := waitFor(c)
	if err != nil {
		return err
	}
	id, err := pathValue(c, "id")
	if err != nil {
		return err
	}
	about(c).callID = id
	j, err := s.job(id, about(c).tenant)
	if err != nil {
		return err
	}
	if wait > 0 && !j.ended() && s.awaitEnd(j, wait) {
		if j, err = s.freshJob(id, j.tenant); err != nil {
			return err
		}
	}
	return s.sendStatus(c, j, links)
}

func (s *Server) sendStatus(c *fiber.Ctx, j *job, links bool) error {
	switch j.status.State {
	case comfy.Completed:
		return s.sendResult(c, j, links)
	case comfy.Failed:
		return c.Status(http.StatusOK).JSON(failedBody(&j.status))
	default:
		return c.Status(http.StatusAccepted).JSON(runningBody(&j.status))
	}
}

// awaitEnd holds until the job ends, the time is over or the server stops, and reports whether it held at all. That the
// client has left shows only when the answer is written.
func (s *Server) awaitEnd(j *job, wait time.Duration) bool {
	defer s.waiters.Add(-1)
	if s.waiters.Add(1) > maxWaiters {
		return false
	}
	ctx, cancel := context.WithTimeout(s.draining, wait)
	defer cancel()
	for ctx.Err() == nil {
		slice, done := context.WithTimeout(ctx, longPoll)
		// Why it ended is read again in one place for all; a Temporal that does not answer shows there as well.
		_ = s.temporal.GetWorkflow(slice, j.id, j.runID).Get(slice, nil)
		early := slice.Err() == nil
		done()
		now, err := s.freshJob(j.id, j.tenant)
		if err == nil && now.ended() || err != nil && asError(err).Code == CodeNotFound {
			break
		}
		if early { // Temporal had a word of its own, such as that it is busy
			select {
			case <-ctx.Done():
			case <-time.After(openFor):
			}
		}
	}
	return true
}

// pathValue decodes one element of the path: workflow IDs of others may hold what has to be escaped there.
func pathValue(c *fiber.Ctx, name string) (string, error) {
	value, err := url.PathUnescape(c.Params(name))
	if err != nil {
		return "", notFound()
	}
	return strings.Clone(value), nil
}

func wantsLinks(c *fiber.Ctx) (bool, error) {
	switch c.Query("output") {
	case "", "base64":
		return false, nil
	case "url":
		return true, nil
	}
	return false, failf(CodeInvalidRequest, "output must be base64 or url.")
}

func waitFor(c *fiber.Ctx) (time.Duration, error) {
	text := c.Query("wait")
	if text == "" {
		return 0, nil
	}
	seconds, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, failf(CodeInvalidRequest, "wait must be a number of seconds, such as 30.")
	}
	return min(time.Duration(seconds)*time.Second, maxWait), nil
}

// running is the answer for an open job.
type running struct {
	ID            string          `json:"id"`
	Status        comfy.State     `json:"status"`
	Phase         comfy.Phase     `json:"phase"`
	Progress      *comfy.Progress `json:"progress,omitempty"`
	QueuePosition *int            `json:"queue_position,omitempty"`
	CreatedAt     time.Time       `json:"created_at"`
	Attempts      int             `json:"attempts"`
	Backend       string          `json:"backend,omitempty"`
}

func runningBody(st *comfy.Status) running {
	return running{
		ID: st.ID, Status: comfy.Running, Phase: st.Phase, Progress: st.Progress, QueuePosition: st.QueuePosition,
		CreatedAt: st.CreatedAt, Attempts: st.Attempts, Backend: st.Backend,
	}
}

// failed is the answer for a job that failed or was canceled. It comes with 200: the request has succeeded.
type failed struct {
	ID         string           `json:"id"`
	Status     comfy.State      `json:"status"`
	Error      string           `json:"error"`
	Code       comfy.Code       `json:"code"`
	NodeID     string           `json:"node_id,omitempty"`
	NodeErrors comfy.NodeErrors `json:"node_errors,omitempty"`
	Attempts   int              `json:"attempts"`
	Backend    string           `json:"backend,omitempty"`
	Metrics    comfy.Metrics    `json:"metrics"`
	CreatedAt  time.Time        `json:"created_at"`
	EndedAt    *time.Time       `json:"ended_at,omitempty"`
	ExpiresAt  *time.Time       `json:"expires_at,omitempty"`
}

func failedBody(st *comfy.Status) failed {
	f := st.Failure
	return failed{
		ID: st.ID, Status: comfy.Failed, Error: f.Message, Code: f.Code, NodeID: f.NodeID, NodeErrors: f.NodeErrors,
		Attempts: f.Attempts, Backend: f.Backend, Metrics: f.Metrics,
		CreatedAt: st.CreatedAt, EndedAt: st.EndedAt, ExpiresAt: st.ExpiresAt,
	}
}
