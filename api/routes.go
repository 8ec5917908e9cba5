package api

import (
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/cors"
	"github.com/gofiber/fiber/v2/middleware/recover"
	"github.com/google/uuid"
	"github.com/sirupsen/logrus"
)

const (
	headerRequestID      = "X-Request-Id"
	headerIdempotencyKey = "Idempotency-Key"
	headerReplayed       = "Idempotent-Replayed"
)

// routes is the whole address space. GET answers HEAD too.
func (s *Server) routes() {
	s.app.Use(s.observe)
	s.app.Use(recover.New(recover.Config{EnableStackTrace: true, StackTraceHandler: s.logPanic}))
	if len(s.opts.CORSOrigins) > 0 {
		s.app.Use(cors.New(cors.Config{
			Next:          func(c *fiber.Ctx) bool { return strings.HasPrefix(c.Path(), codecPath+"/") }, // for other pages
			AllowOrigins:  strings.Join(s.opts.CORSOrigins, ","),
			AllowMethods:  "GET,HEAD,POST,DELETE",
			AllowHeaders:  strings.Join([]string{fiber.HeaderAuthorization, fiber.HeaderContentType, headerIdempotencyKey, headerRequestID}, ","),
			ExposeHeaders: strings.Join([]string{headerRequestID, headerReplayed, fiber.HeaderRetryAfter, fiber.HeaderETag}, ","),
			MaxAge:        600,
		}))
	}
	s.app.Use(refuseTooLarge(s.opts.BodyLimit))

	s.codecRoutes()
	s.app.Get("/healthz", s.healthz)
	s.app.Get("/readyz", s.readyz)
	s.app.Get("/outputs/:job/:sha256/:filename?", s.download) // by key or by signature

	s.app.Post("/submit_workflow", s.authenticate, s.submit)
	s.app.Get("/status/:id", s.authenticate, s.status)
	s.app.Get("/jobs", s.authenticate, s.list)
	s.app.Get("/jobs/:id", s.authenticate, s.status)
	s.app.Delete("/jobs/:id", s.authenticate, s.remove)
	s.app.Post("/cancel/:id", s.authenticate, s.cancel)
	s.app.Post("/inputs", s.authenticate, s.upload)
}

// request is what is known about a request, for handlers and for the log.
type request struct {
	id     string // X-Request-Id
	tenant string // empty before it is known
	callID string
}

const requestKey = "comfyd.request"

// about returns the request's own notes; it makes them for requests that never came through the middleware.
func about(c *fiber.Ctx) *request {
	if r, ok := c.Locals(requestKey).(*request); ok {
		return r
	}
	r := &request{}
	c.Locals(requestKey, r)
	return r
}

var validRequestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// observe names the request and writes its line in the log: what changes something at level info, what reads at debug.
// Query strings are left out, since signatures stand in them.
func (s *Server) observe(c *fiber.Ctx) error {
	start := time.Now()
	id := c.Get(headerRequestID)
	if !validRequestID.MatchString(id) {
		id = uuid.NewString()
	}
	about(c).id = id
	c.Set(headerRequestID, id)
	secureHeaders(c)

	if err := c.Next(); err != nil {
		if err := c.App().ErrorHandler(c, err); err != nil {
			return err
		}
	}
	log := requestLog(s.log, c).WithFields(logrus.Fields{
		"method": c.Method(), "path": c.Path(), "status": c.Response().StatusCode(),
		"duration_ms": time.Since(start).Milliseconds(), "ip": c.IP(),
	})
	if c.Method() == fiber.MethodPost || c.Method() == fiber.MethodDelete {
		log.Info("request")
	} else {
		log.Debug("request")
	}
	return nil
}

func requestLog(log logrus.FieldLogger, c *fiber.Ctx) logrus.FieldLogger {
	r := about(c)
	fields := logrus.Fields{"request_id": r.id}
	if r.tenant != "" {
		fields["tenant"] = r.tenant
	}
	if r.callID != "" {
		fields["call_id"] = r.callID
	}
	return log.WithFields(fields)
}

func (s *Server) logPanic(c *fiber.Ctx, reason any) {
	requestLog(s.log, c).WithField("stack", string(debug.Stack())).Errorf("a handler panicked: %v", reason)
}

// secureHeaders suit every JSON answer; downloads loosen them.
func secureHeaders(c *fiber.Ctx) {
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Set(fiber.HeaderCacheControl, "no-store")
}

func refuseTooLarge(limit int64) fiber.Handler {
	return func(c *fiber.Ctx) error {
		if c.Get(tooLargeValue) != "" {
			return tooLarge(limit)
		}
		return c.Next()
	}
}
