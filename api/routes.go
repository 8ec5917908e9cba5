package api

import (
	"runtime/debug"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/gofiber/fiber/v2/middleware/cors"
	"github.com/gofiber/fiber/v2/middleware/recover"
)

const (
	headerRequestID      = "X-Request-Id"
	headerIdempotencyKey = "Idempotency-Key"
	headerReplayed       = "Idempotent-Replayed"
	headerLastEventID    = "Last-Event-ID"
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
			AllowHeaders:  strings.Join([]string{fiber.HeaderAuthorization, fiber.HeaderContentType, headerIdempotencyKey, headerRequestID, headerLastEventID}, ","),
			ExposeHeaders: strings.Join([]string{headerRequestID, headerReplayed, fiber.HeaderRetryAfter, fiber.HeaderETag}, ","),
			MaxAge:        600,
		}))
	}
	s.app.Use(refuseTooLarge(s.opts.BodyLimit))

	s.codecRoutes()
	s.app.Get("/", s.home)
	s.app.Get("/favicon.ico", s.icon)
	s.app.Get("/favicon.svg", s.icon)
	s.app.Get("/web/:digest/:file", s.webFile)
	s.app.Get("/jobs/:id", s.jobPage)
	s.app.Get("/page.json", s.authenticate, s.pageSettings)
	s.app.Get("/healthz", s.healthz)
	s.app.Get("/readyz", s.readyz)
	s.app.Get("/openapi.json", s.describe)
	s.app.Get("/docs", s.docs)
	s.app.Get("/docs/:file", s.docsFile)
	s.app.Get("/outputs/:archive", s.archive)                 // by key or by signature
	s.app.Get("/outputs/:job/:sha256/:filename?", s.download) // likewise
	s.app.Get("/events/:id", s.events)                        // likewise
	if s.opts.Metrics != nil {
		s.app.Get("/metrics", adaptor.HTTPHandler(s.opts.Metrics)) // it asks for a key of its own
	}

	s.app.Post("/submit_workflow", s.authenticate, s.submit)
	s.app.Post("/batch", s.authenticate, s.submitBatch)
	s.app.Get("/status/:id", s.authenticate, s.status)
	s.app.Get("/jobs", s.authenticate, s.list)
	s.app.Get("/jobs/:id", s.authenticate, s.status)
	s.app.Delete("/jobs/:id", s.authenticate, s.remove)
	s.app.Get("/jobs/:id/webhook", s.authenticate, s.webhook)
	s.app.Post("/jobs/:id/webhook/replay", s.authenticate, s.replayWebhook)
	s.app.Get("/webhooks/secret", s.authenticate, s.webhookSecret)
	s.app.Post("/cancel/:id", s.authenticate, s.cancel)
	s.app.Post("/inputs", s.authenticate, s.upload)
	s.app.Get("/models", s.authenticate, s.models)
	s.app.Get("/models/:folder", s.authenticate, s.models)
	s.app.Get("/nodes", s.authenticate, s.nodes)
	s.app.Get("/nodes/+", s.authenticate, s.node) // names of classes hold slashes, too
	s.templates = templates(s.app)
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
