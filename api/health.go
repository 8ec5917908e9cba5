package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"go.temporal.io/sdk/client"
)

const (
	readyTimeout = 2 * time.Second
	// readyFor keeps probes, which need no key, from becoming load on what they probe.
	readyFor = time.Second
	// sayAgain is how often the log names a part that stays down: anybody may ask, and the disk may be what is full.
	sayAgain = time.Minute
)

// healthz is GET /healthz: the process answers.
func (s *Server) healthz(c *fiber.Ctx) error {
	return c.JSON(fiber.Map{"status": "ok", "version": s.opts.Version})
}

// part is one thing that the server depends on. Reasons are for the log: anybody may ask.
type part struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

type readyBody struct {
	Status   string `json:"status"` // "ok", "down" or "stopping"
	Temporal part   `json:"temporal"`
	Store    part   `json:"store"`
	Backend  part   `json:"backend"`
	// Disk is about the file systems of the data folder and of a store that is a folder.
	Disk part `json:"disk"`
}

// readiness is the last answer of /readyz.
type readiness struct {
	mu   sync.Mutex
	at   time.Time
	last readyBody
	// said is when each part that is down was last named in the log.
	said sync.Map
}

// readyz is GET /readyz: jobs can be taken and run. 503 when one part is down.
func (s *Server) readyz(c *fiber.Ctx) error {
	body := s.readyNow()
	if s.leaving.Load() || s.draining.Err() != nil {
		body.Status = "stopping"
	}
	if body.Status != "ok" {
		c.Status(http.StatusServiceUnavailable)
	}
	return c.JSON(body)
}

// Ready tells of each part of GET /readyz whether it can be used.
func (s *Server) Ready() map[string]bool {
	b := s.readyNow()
	return map[string]bool{"temporal": b.Temporal.OK, "store": b.Store.OK, "backend": b.Backend.OK, "disk": b.Disk.OK}
}

func (s *Server) readyNow() readyBody {
	s.ready.mu.Lock()
	defer s.ready.mu.Unlock()
	if !s.ready.at.IsZero() && s.now().Sub(s.ready.at) < readyFor {
		return s.ready.last
	}
	ctx, cancel := context.WithTimeout(s.life, readyTimeout)
	defer cancel()
	body := readyBody{Status: "ok"}
	var all sync.WaitGroup
	all.Go(func() {
		_, err := s.temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
		body.Temporal = s.partOf("temporal", err, "Temporal does not answer.")
	})
	all.Go(func() {
		body.Store = s.partOf("store", s.store.Ping(ctx), "The store cannot be used.")
	})
	all.Go(func() {
		body.Backend = s.partOf("backend", s.catalogs.Alive(ctx), "No backend is alive; jobs are accepted and wait.")
	})
	all.Go(func() {
		body.Disk = s.partOf("disk", s.admission.space.now(s), "The disk is nearly full; no job is accepted.")
	})
	all.Wait()
	if !body.Temporal.OK || !body.Store.OK || !body.Backend.OK || !body.Disk.OK {
		body.Status = "down"
	}
	s.ready.last, s.ready.at = body, s.now()
	return body
}

func (s *Server) partOf(name string, err error, text string) part {
	if err == nil {
		s.ready.said.Delete(name)
		return part{OK: true}
	}
	if at, ok := s.ready.said.Load(name); !ok || s.now().Sub(at.(time.Time)) >= sayAgain {
		s.ready.said.Store(name, s.now())
		s.log.WithError(err).WithField("part", name).Warn("not ready: " + text)
	}
	return part{Error: text}
}
