package api

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

const (
	// slowestBody is the rate in bytes a second below which a body counts as an attack rather than a slow line.
	slowestBody = 32 << 10
	// lingerTime and lingerBytes bound what is read and dropped of a body after its refusal.
	lingerTime  = 10 * time.Second
	lingerSlice = 250 * time.Millisecond
	lingerBytes = 256 << 20
	// smallRest is what fasthttp itself drops of an unread body and then keeps the connection.
	smallRest = 64 << 10
	// bodiesInMemory times the body limit is what all JSON bodies together may have. Decoding one takes about three times
	// its size.
	bodiesInMemory = 2
)

// unknownMethod stands for methods that Fiber does not know and would refuse in plain text; no route takes it.
const unknownMethod = fiber.MethodTrace

// Markers in a request's user values.
const (
	bodyValue     = "comfyd.body"
	tooLargeValue = "X-Comfyd-Body-Too-Large"
)

// body is a request's body as it arrives: limited in size, in time and, for bodies that are held in memory, in what
// all of them take together. It remembers how it failed, because whoever reads it may not pass the reason on.
type body struct {
	conn     net.Conn
	src      io.Reader
	limit    int64
	declared int64 // Content-Length, or negative
	read     int64
	deadline time.Time
	memory   *budget // nil where the body is streamed on
	taken    int64   // of memory
	err      error
}

// openBody must be closed by the caller.
func (s *Server) openBody(c *fiber.Ctx, memory *budget) *body {
	b := &body{
		conn: c.Context().Conn(), src: c.Context().RequestBodyStream(), memory: memory,
		limit: s.opts.BodyLimit, declared: int64(c.Request().Header.ContentLength()),
	}
	if b.src == nil {
		b.src, b.declared = http.NoBody, 0
	}
	size := b.declared
	if size < 0 {
		size = b.limit
	}
	b.deadline = time.Now().Add(headerTimeout + time.Duration(size/slowestBody)*time.Second)
	c.Context().SetUserValue(bodyValue, b)
	return b
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	// One byte more than allowed tells a body that is too large from one that just fits.
	if room := b.limit - b.read; int64(len(p)) > room {
		p = p[:room+1]
	}
	pause := time.Now().Add(headerTimeout)
	if pause.After(b.deadline) {
		pause = b.deadline
	}
	if err := b.conn.SetReadDeadline(pause); err != nil {
		return 0, b.fail(err)
	}
	n, err := b.src.Read(p)
	b.read += int64(n)
	switch {
	case b.read > b.limit:
		return 0, b.fail(tooLarge(b.limit))
	case b.memory != nil && !b.memory.take(int64(n)):
		return 0, b.fail(failf(CodeUnavailable, "The server is busy with other large requests. Nothing was accepted; try again."))
	}
	b.taken += int64(n)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, b.fail(failf(CodeRequestTimeout, "The request body did not arrive in time.").because(err))
	case err != io.EOF || b.read < b.declared:
		return n, b.fail(failf(CodeInvalidRequest, "The request body ended before it was complete.").because(err))
	}
	b.err = io.EOF
	return n, io.EOF
}

func (b *body) fail(err error) error {
	b.err = err
	return err
}

// failure is how the body failed, nil where it did not.
func (b *body) failure() error {
	if b.err == io.EOF {
		return nil
	}
	return b.err
}

// close gives back the memory that the body was counted with.
func (b *body) close() {
	if b.memory != nil {
		b.memory.give(b.taken)
		b.memory = nil
	}
}

// budget counts bytes against a maximum.
type budget struct {
	used atomic.Int64
	max  int64
}

func newBudget(limit int64) *budget { return &budget{max: limit} }

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.max {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// headerReceived runs before fasthttp touches the body. One that says itself that it is too large is not read at all:
// fasthttp is told that there is none, and the handler finds the marker and refuses it.
func (s *Server) headerReceived(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	h.Del(tooLargeValue)
	if int64(h.ContentLength()) > s.opts.BodyLimit {
		h.Set(tooLargeValue, "1")
		h.Del(fasthttp.HeaderExpect)
		h.SetContentLength(0)
	}
	return fasthttp.RequestConfig{}
}

// serve stands between fasthttp and Fiber: it answers what Fiber would answer in plain text, and takes care of clients
// that are still sending when the answer is ready.
func (s *Server) serve(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		if !slices.Contains(fiber.DefaultMethods, string(ctx.Method())) {
			ctx.Request.Header.SetMethod(unknownMethod)
		}
		next(ctx)
		if s.stillSending(ctx) {
			s.linger(ctx)
		}
	}
}

func (s *Server) stillSending(ctx *fasthttp.RequestCtx) bool {
	if len(ctx.Request.Header.Peek(tooLargeValue)) > 0 {
		return true
	}
	if ctx.RequestBodyStream() == nil {
		return false
	}
	var read int64
	if b, ok := ctx.UserValue(bodyValue).(*body); ok {
		if b.err == io.EOF {
			return false
		}
		read = b.read
	}
	length := int64(ctx.Request.Header.ContentLength())
	return length < 0 || length-read > smallRest
}

// linger answers at once and then reads on for a while before it closes. A socket that is closed with unread bytes in
// it is reset, and a client that is busy sending would see the reset and never the answer.
func (s *Server) linger(ctx *fasthttp.RequestCtx) {
	if ctx.Response.IsBodyStream() {
		return
	}
	resp := fasthttp.AcquireResponse()
	ctx.Response.CopyTo(resp)
	resp.SetConnectionClose()
	resp.SkipBody = ctx.IsHead()
	s.lingers.Add(1)
	raw := ctx.Conn() // the hijacked one cannot close one half
	ctx.HijackSetNoResponse(true)
	ctx.Hijack(func(conn net.Conn) {
		defer s.lingers.Done()
		defer fasthttp.ReleaseResponse(resp)
		end := time.Now().Add(lingerTime)
		if conn.SetWriteDeadline(end) != nil {
			return
		}
		w := bufio.NewWriter(conn)
		if resp.Write(w) != nil || w.Flush() != nil {
			return
		}
		if half, ok := raw.(interface{ CloseWrite() error }); ok && half.CloseWrite() != nil {
			return
		}
		left := int64(lingerBytes)
		for left > 0 && time.Now().Before(end) && s.draining.Err() == nil {
			if conn.SetReadDeadline(time.Now().Add(lingerSlice)) != nil {
				return
			}
			n, err := io.CopyN(io.Discard, conn, left)
			left -= n
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
		}
	})
}
