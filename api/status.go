package api

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/comfyd/comfyd/comfy"
)

const maxWait = 60 * time.Second

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
	j, _ := s.started.get(id, s.now())
	if j == nil || j.tenant != about(c).tenant || wait == 0 {
		if j, err = s.job(id, about(c).tenant); err != nil {
			return err
		}
	}
	if wait > 0 && !j.ended() {
		s.watches.await(j, wait)
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
		return c.Status(http.StatusAccepted).JSON(s.runningBody(s.base(c), j.tenant, &j.status))
	}
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
	EventsURL     string          `json:"events_url"`
}

// runningBody has links below base.
func (s *Server) runningBody(base, tenant string, st *comfy.Status) running {
	return running{
		EventsURL: s.eventsURL(base, tenant, st.ID),
		ID:        st.ID, Status: comfy.Running, Phase: st.Phase, Progress: st.Progress, QueuePosition: st.QueuePosition,
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
