package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/sirupsen/logrus"
)

// streamTimeout bounds one download; the write deadline ends one that has stalled long before.
const streamTimeout = time.Hour

// piece is one part of a stream: bytes at hand, or length bytes of an object from offset, as they are or in base64.
type piece struct {
	text           []byte
	key            string
	offset, length int64
	base64         bool
}

func (p *piece) size() int64 {
	switch {
	case p.key == "":
		return int64(len(p.text))
	case p.base64:
		return (p.length + 2) / 3 * 4
	default:
		return p.length
	}
}

// stream is a response body of known size that is read from the store while it is sent. It holds one buffer.
type stream struct {
	store  Store
	conn   net.Conn
	log    logrus.FieldLogger
	ctx    context.Context
	cancel context.CancelFunc

	pieces []piece
	size   int64

	ready  []byte // encoded and not yet handed out
	object io.ReadCloser
	left   int64 // bytes of object still to come
	raw    []byte
	coded  []byte
}

// chunk is what is read of an object at a time. Three bytes make four characters, so chunks join without padding.
const chunk = 48 << 10

func (s *Server) newStream(c *fiber.Ctx) *stream {
	st := &stream{store: s.store, conn: c.Context().Conn(), log: requestLog(s.log, c)}
	st.ctx, st.cancel = context.WithTimeout(s.life, streamTimeout)
	return st
}

// sendStream hands st to the HTTP library, which reads and closes it after the handler has returned.
func (s *Server) sendStream(c *fiber.Ctx, st *stream) error {
	c.Context().SetBodyStream(st, int(st.size))
	return nil
}

// endRead is deferred by each Read of a body. A failure breaks the connection, so that nobody takes a part for the whole; only
// the log can say why. A panic would end the process: bodies are read outside of what the HTTP library guards.
func endRead(log logrus.FieldLogger, broken string, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
	}
	if *err != nil && *err != io.EOF {
		log.WithError(*err).Error(broken)
	}
}

// Read fills p.
func (st *stream) Read(p []byte) (n int, err error) {
	defer endRead(st.log, "an answer broke off", &err)
	return st.read(p)
}

func (st *stream) read(p []byte) (n int, err error) {
	for len(st.ready) == 0 {
		if err := st.fill(); err != nil {
			return 0, err
		}
	}
	n = copy(p, st.ready)
	st.ready = st.ready[n:]
	return n, nil
}

// fill makes the next bytes ready, or returns io.EOF.
func (st *stream) fill() error {
	if len(st.pieces) == 0 {
		return io.EOF
	}
	next := &st.pieces[0]
	if next.key == "" {
		st.ready, st.pieces = next.text, st.pieces[1:]
		return nil
	}
	if st.object == nil {
		if err := st.openObject(next); err != nil {
			return err
		}
	}
	// Each piece has its own time: a slow client keeps its download, one that has stopped reading loses it.
	if err := st.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	n, err := io.ReadFull(st.object, st.raw[:min(st.left, chunk)])
	if err != nil {
		return fmt.Errorf("read %s: %w", next.key, err)
	}
	st.left -= int64(n)
	st.ready = st.raw[:n]
	if next.base64 {
		st.coded = base64.StdEncoding.AppendEncode(st.coded[:0], st.raw[:n])
		st.ready = st.coded
	}
	if st.left == 0 {
		st.pieces = st.pieces[1:]
		return st.closeObject()
	}
	return nil
}

func (st *stream) openObject(p *piece) error {
	if p.length == 0 {
		st.object = io.NopCloser(bytes.NewReader(nil))
	} else {
		object, err := st.store.Open(st.ctx, p.key, p.offset, p.length)
		if err != nil {
			return err
		}
		st.object = object
	}
	if st.raw == nil {
		st.raw = make([]byte, chunk)
	}
	st.left = p.length
	return nil
}

func (st *stream) closeObject() error {
	object := st.object
	st.object = nil
	if object == nil {
		return nil
	}
	return object.Close()
}

// Close ends the stream, wherever it is.
func (st *stream) Close() error {
	st.cancel()
	return st.closeObject()
}

// layout writes a stream's pieces.
type layout struct {
	stream *stream
	buf    bytes.Buffer
	err    error
}

func (l *layout) text(text string) { l.buf.WriteString(text) }

func (l *layout) json(v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		l.err = errors.Join(l.err, fmt.Errorf("encode the answer: %w", err))
		return
	}
	l.buf.Write(raw)
}

// object writes the fields of head, what inner writes, and the fields of tail as one JSON object.
func (l *layout) object(head any, inner func(), tail any) {
	l.json(head)
	l.buf.Truncate(max(l.buf.Len()-1, 0)) // its closing brace
	l.text(",")
	if inner != nil {
		inner()
		l.text(",")
	}
	at := l.buf.Len()
	l.json(tail)
	if raw := l.buf.Bytes(); len(raw) > at {
		copy(raw[at:], raw[at+1:]) // its opening brace
		l.buf.Truncate(len(raw) - 1)
	}
}

// base64 lets the bytes of an object follow.
func (l *layout) base64(key string, length int64) {
	l.flush()
	l.add(piece{key: key, length: length, base64: true})
}

func (l *layout) flush() {
	l.add(piece{text: bytes.Clone(l.buf.Bytes())})
	l.buf.Reset()
}

func (l *layout) add(p piece) {
	l.stream.pieces = append(l.stream.pieces, p)
	l.stream.size += p.size()
}

func (l *layout) done() (*stream, error) {
	l.flush()
	if l.err != nil {
		return nil, errors.Join(l.err, l.stream.Close())
	}
	return l.stream, nil
}
