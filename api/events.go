package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/sirupsen/logrus"

	"github.com/comfyd/comfyd/comfy"
)

const (
	// keepAlive is how often a stream that has nothing to say says so: proxies end what is silent, and a client that has
	// left shows when it is written to.
	keepAlive = 15 * time.Second
	// streamStall is for how long a client may take nothing of what is written to it.
	streamStall = 15 * time.Second
	// streamBuffer is what the system holds of a stream that its client does not read, so that this shows.
	streamBuffer = 64 << 10
	// reconnectMS is what clients are told to wait before they connect again.
	reconnectMS = 1000

	eventStream = "text/event-stream"
)

// Kinds of events. The list is closed.
const (
	eventStatus  = "status"
	eventPreview = "preview"
	eventOutput  = "output"
	eventDone    = "done"
)

// events is GET /events/{id}: by key, or by a signed link, since a browser's EventSource sends no key.
func (s *Server) events(c *fiber.Ctx) error {
	id, err := pathValue(c, "id")
	if err != nil {
		return err
	}
	j, err := s.linkedJob(c, id, eventsPath(id))
	if err != nil {
		return err
	}
	if s.draining.Err() != nil {
		return failf(CodeUnavailable, "The server is stopping. Try again.")
	}
	var f *feed
	if c.Method() != fiber.MethodHead {
		if f, err = s.feeds.join(j); err != nil {
			return err
		}
	}
	c.Set(fiber.HeaderContentType, eventStream)
	c.Set(fiber.HeaderCacheControl, "no-store, no-transform")
	c.Set("X-Accel-Buffering", "no") // nginx would hold events back
	c.Context().Response.SetConnectionClose()
	if f == nil {
		return c.SendStatus(http.StatusOK)
	}
	l := &listener{
		s: s, feed: f, base: s.base(c), conn: c.Context().Conn(), log: requestLog(s.log, c),
		sent: seenOutputs(c.Get(headerLastEventID), j.runID),
	}
	l.shrink()
	l.buf.WriteString("retry: " + strconv.Itoa(reconnectMS) + "\n\n")
	c.Context().SetBodyStream(l, -1)
	return nil
}

// eventsPath is the address of a job's events; links are signed over it.
func eventsPath(id string) string { return "/events/" + url.PathEscape(id) }

// eventsURL is a link to a job's events. It stays the same for an hour, so that what holds it does not always change.
func (s *Server) eventsURL(base, tenant, id string) string {
	path := eventsPath(id)
	return base + path + "?" + s.signature(tenant, path, s.now().Add(linkLife).Truncate(time.Hour))
}

// listener is the body of an answer that is made of events as they come. fasthttp reads it, writes each piece out, and
// closes it when the client has left, which shows when something is written to it.
type listener struct {
	s    *Server
	feed *feed
	base string // of links
	conn net.Conn
	log  logrus.FieldLogger

	buf                bytes.Buffer // what is to be written
	statuses, previews int          // how many have been passed on, or passed over
	sent               int          // outputs that the client has
	over, closed       bool
}

// shrink leaves less of the stream in the system's buffers than it would by itself.
func (l *listener) shrink() {
	conn := l.conn
	if layered, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = layered.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetWriteBuffer(streamBuffer); err != nil {
			l.log.WithError(err).Debug("an event stream keeps the system's own buffer")
		}
	}
}

// Read waits for events, and ends with the job or the server.
func (l *listener) Read(p []byte) (n int, err error) {
	defer endRead(l.log, "an event stream broke off", &err)
	for l.buf.Len() == 0 {
		if l.over {
			return 0, io.EOF
		}
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(l.s.streamStall)); err != nil {
		return 0, err
	}
	return l.buf.Read(p)
}

// Close ends the stream.
func (l *listener) Close() error {
	if !l.closed {
		l.closed = true
		l.s.feeds.leave(l.feed)
	}
	return nil
}

// next puts what there is into the buffer, or waits for something.
func (l *listener) next() error {
	now, changed := l.feed.state()
	switch {
	case now.end != nil:
		l.over = true
		return l.ending(now.end)
	case now.gone:
		l.over = true
		return nil
	case now.statuses != l.statuses:
		l.statuses = now.statuses
		return l.event(eventStatus, l.s.runningBody(l.base, l.feed.tenant, &now.status))
	case now.previews != l.previews:
		l.previews = now.previews
		return l.event(eventPreview, now.preview)
	}
	quiet := time.NewTimer(l.s.keepAlive)
	defer quiet.Stop()
	select {
	case <-changed:
	case <-quiet.C:
		l.buf.WriteString(": keep-alive\n\n")
	case <-l.s.draining.Done():
		l.over = true
	}
	return nil
}

// ending puts the outputs that the client does not have, and the end.
func (l *listener) ending(j *job) error {
	if j.status.State != comfy.Completed {
		return l.event(eventDone, failedBody(&j.status))
	}
	outputs, r := 0, j.status.Result
	add := func(v any) error {
		if outputs++; outputs <= l.sent {
			return nil
		}
		l.sent = outputs
		return l.event(eventOutput, v)
	}
	for _, list := range []struct {
		name    string
		outputs []comfy.Output
	}{{"images", r.Images}, {"files", r.Files}} {
		for _, out := range list.outputs {
			err := add(listedOutput{outputHead{Filename: out.Filename, Type: typeURL}, l.s.linkedTail(l.base, j, out), list.name})
			if err != nil {
				return err
			}
		}
	}
	for _, t := range r.Texts {
		item := outputText{NodeID: t.NodeID, SizeBytes: t.Size}
		if t.Ref == "" {
			item.Text = &t.Text
		} else {
			item.URL, item.URLExpiresAt = l.s.textLink(l.base, j, t)
		}
		if err := add(listedText{item, "texts"}); err != nil {
			return err
		}
	}
	whole, err := l.s.composeResult(context.Background(), &stream{cancel: func() {}}, l.base, j, true)
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(whole)
	if err != nil {
		return fmt.Errorf("encode the end of a job: %w", err)
	}
	return l.event(eventDone, json.RawMessage(raw))
}

// listedOutput and listedText are outputs of their own, which say where in the result they stand.
type listedOutput struct {
	outputHead
	outputTail
	List string `json:"list"`
}

type listedText struct {
	outputText
	List string `json:"list"`
}

// event puts one into the buffer. JSON has no line breaks of its own. The ID says which outputs the client has, and of
// which run.
func (l *listener) event(kind string, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode the event %s: %w", kind, err)
	}
	fmt.Fprintf(&l.buf, "event: %s\nid: %s\ndata: %s\n\n", kind, eventID(l.feed.runID, l.sent), raw)
	return nil
}

func eventID(runID string, outputs int) string {
	return runMark(runID) + "-" + strconv.Itoa(outputs)
}

// runMark tells the runs of a job apart: one that was deleted may have a successor under its ID.
func runMark(runID string) string { return runID[:min(8, len(runID))] }

// seenOutputs is how many outputs of a run a client has, by the last event that it has seen. What is no such ID counts
// for nothing.
func seenOutputs(lastEventID, runID string) int {
	outputs, ok := strings.CutPrefix(lastEventID, runMark(runID)+"-")
	n, err := strconv.ParseUint(outputs, 10, 31)
	if !ok || err != nil {
		return 0
	}
	return int(n)
}
