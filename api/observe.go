package api

import (
	"context"
	"net/http"
	"regexp"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/sirupsen/logrus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/comfyd/comfyd/internal/logs"
)

// request is what is known about a request, for handlers, the log and the trace.
type request struct {
	id     string // X-Request-Id
	tenant string // empty before it is known
	callID string
	span   trace.Span // nil where the request is not traced
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

// in returns ctx as one that works for this request: what Temporal is asked under it is part of the request's trace, and
// the workflow learns whose it is.
func (r *request) in(ctx context.Context) context.Context {
	ctx = logs.With(ctx, logs.About{CallID: r.callID, RequestID: r.id, Tenant: r.tenant})
	if r.span == nil {
		return ctx
	}
	return trace.ContextWithSpan(ctx, r.span)
}

var validRequestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// observe names the request, measures it and writes its line in the log: what changes something at level info, what reads
// at debug. Query strings are left out, since signatures stand in them.
func (s *Server) observe(c *fiber.Ctx) error {
	start := time.Now()
	id := c.Get(headerRequestID)
	if !validRequestID.MatchString(id) {
		id = uuid.NewString()
	}
	r := about(c)
	r.id = id
	c.Set(headerRequestID, id)
	secureHeaders(c)
	s.beginSpan(c, r, start)

	if err := c.Next(); err != nil {
		if err := c.App().ErrorHandler(c, err); err != nil {
			return err
		}
	}
	route, status, took := s.route(c), c.Response().StatusCode(), time.Since(start)
	if s.opts.Observed != nil {
		s.opts.Observed(route, c.Method(), status, took)
	}
	endSpan(r, c.Method()+" "+route, status)
	log := requestLog(s.log, c).WithFields(logrus.Fields{
		"method": c.Method(), "path": c.Path(), "status": status,
		"duration_ms": took.Milliseconds(), "ip": c.IP(),
	})
	if changes(c) {
		log.Info("request")
	} else {
		log.Debug("request")
	}
	return nil
}

func changes(c *fiber.Ctx) bool {
	return c.Method() == fiber.MethodPost || c.Method() == fiber.MethodDelete
}

// templates are the routes of an app that is built, without what stands before all of them.
func templates(app *fiber.App) map[string]bool {
	all := map[string]bool{}
	for _, r := range app.GetRoutes(true) {
		all[r.Method+" "+r.Path] = true
	}
	return all
}

// route names the request for a metric: by the template of its route, never by its path, of which there are as many as
// clients care to send. A status that waits for the job's end has a name of its own: its time is the client's wish.
func (s *Server) route(c *fiber.Ctx) string {
	path := c.Route().Path
	switch {
	case path == "/" && c.Path() != "/", !s.templates[c.Route().Method+" "+path]: // "/" is what stands before all routes, too
		return "other"
	case c.Query("wait") != "":
		return path + "?wait"
	}
	return path
}

// beginSpan begins the span of a request that changes something, or that is part of the client's own trace. The rest are
// polls: many, and all alike.
func (s *Server) beginSpan(c *fiber.Ctx, r *request, at time.Time) {
	if s.opts.Tracer == nil {
		return
	}
	carrier := propagation.MapCarrier{"traceparent": c.Get("Traceparent"), "tracestate": c.Get("Tracestate")}
	ctx := propagation.TraceContext{}.Extract(context.Background(), carrier)
	if !changes(c) && !trace.SpanContextFromContext(ctx).IsSampled() {
		return
	}
	_, r.span = s.opts.Tracer.Start(ctx, c.Method(), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(at))
}

func endSpan(r *request, name string, status int) {
	if r.span == nil {
		return
	}
	r.span.SetName(name)
	r.span.SetAttributes(attribute.Int("http.response.status_code", status), attribute.String(logs.RequestID, r.id),
		attribute.String(logs.Tenant, r.tenant), attribute.String(logs.CallID, r.callID))
	if status >= http.StatusInternalServerError {
		r.span.SetStatus(codes.Error, http.StatusText(status))
	}
	r.span.End()
}

func requestLog(log logrus.FieldLogger, c *fiber.Ctx) logrus.FieldLogger {
	r := about(c)
	a := logs.About{CallID: r.callID, RequestID: r.id, Tenant: r.tenant}
	if r.span != nil {
		a.TraceID = r.span.SpanContext().TraceID().String()
	}
	return logs.In(logs.With(context.Background(), a), log)
}
