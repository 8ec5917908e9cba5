package comfyhttp

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/comfyd/comfyd/backend/comfyui"
	"github.com/comfyd/comfyd/internal/catalog"
)

// Binary messages begin with one of these (protocol.py, BinaryEventTypes).
const (
	binaryImage             = 1 // followed by the format: 1 JPEG, 2 PNG
	binaryImageWithMetadata = 4 // followed by the length of a JSON object, that object, and the image
)

// event is what the socket tells the run.
type event struct {
	kind  string // "up" and "down" of the socket, "frame", "preview", or ComfyUI's own name
	note  comfyui.Note
	frame frame
}

// frame is an image that exists only on the socket.
type frame struct {
	node string
	data []byte
	ext  string // ".png" or ".jpg"
	own  bool   // it says that it is our prompt's
}

func (f frame) contentType() string {
	if f.ext == ".jpg" {
		return "image/jpeg"
	}
	return "image/png"
}

// socket is the WebSocket of one prompt. It reopens itself until its context ends.
//
// ComfyUI keeps one socket for each client ID, and when an old one closes after the new one has opened, it forgets the
// new one, for ever: so each prompt has an ID of its own, and a socket is closed before the next one opens.
type socket struct {
	s      *server
	id     string            // prompt ID and client ID
	wanted func(string) bool // whether the images of a node are outputs rather than previews
	events chan event        // closed at the end
	ready  chan struct{}     // closed once the first attempt has come to something, whatever
	kicks  chan struct{}
	ended  bool // ready is closed
}

func (s *server) openSocket(ctx context.Context, id string, wanted func(node string) bool) *socket {
	k := &socket{s: s, id: id, wanted: wanted, events: make(chan event, 64), ready: make(chan struct{}), kicks: make(chan struct{}, 1)}
	go k.run(ctx)
	return k
}

// reopen gives up the present connection for a new one.
func (k *socket) reopen() {
	select {
	case k.kicks <- struct{}{}:
	default:
	}
}

// close waits for the end of a socket whose context has been cancelled.
func (k *socket) close() {
	for range k.events {
	}
}

func (k *socket) run(ctx context.Context) {
	defer close(k.events)
	defer k.tried()
	wait := k.s.t.socketAgain
	for ctx.Err() == nil {
		if k.session(ctx) {
			wait = k.s.t.socketAgain
		}
		k.tried()
		if !k.send(ctx, event{kind: "down"}) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, k.s.t.pollMost)
	}
}

func (k *socket) tried() {
	if !k.ended {
		k.ended = true
		close(k.ready)
	}
}

func (k *socket) send(ctx context.Context, e event) bool {
	select {
	case k.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// session dials and reads until the connection ends. It tells whether anything came.
func (k *socket) session(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	u := k.s.base.JoinPath("/ws")
	u.RawQuery = url.Values{"clientId": {k.id}}.Encode()
	header := http.Header{}
	if k.s.auth != "" {
		header.Set("Authorization", k.s.auth)
	}
	dialing, dialed := context.WithTimeout(ctx, k.s.t.call)
	conn, _, err := websocket.Dial(dialing, u.String(), &websocket.DialOptions{HTTPClient: k.s.http, HTTPHeader: header})
	dialed()
	if err != nil {
		k.s.log.WithError(explain(err, false)).Debug("no WebSocket")
		return false
	}
	var guard sync.WaitGroup
	defer guard.Wait()
	defer cancel()
	defer conn.CloseNow()
	conn.SetReadLimit(maxAnswer) // progress_state repeats every node, and frames are whole images
	// With this, frames say which node they come from.
	if conn.Write(ctx, websocket.MessageText, []byte(`{"type":"feature_flags","data":{"supports_preview_metadata":true}}`)) != nil {
		return false
	}
	guard.Go(func() { k.guard(ctx, cancel, conn) })
	return k.read(ctx, conn)
}

// guard ends the session when the other side does not answer pings, or when it is told to.
func (k *socket) guard(ctx context.Context, cancel func(), conn *websocket.Conn) {
	defer cancel()
	tick := time.NewTicker(k.s.t.ping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.kicks:
			return
		case <-tick.C:
			ping, done := context.WithTimeout(ctx, k.s.t.hung)
			err := conn.Ping(ping)
			done()
			if err != nil {
				return
			}
		}
	}
}

func (k *socket) read(ctx context.Context, conn *websocket.Conn) (heard bool) {
	var (
		executing   string // the node of ours that runs, for frames that do not say theirs
		lastState   time.Time
		lastPreview time.Time
	)
	for {
		kind, data, err := conn.Read(ctx)
		if err != nil {
			return heard
		}
		if !heard {
			heard = true
			if !k.send(ctx, event{kind: "up"}) {
				return heard
			}
		}
		if kind == websocket.MessageBinary {
			f, ok := k.frame(data, executing)
			e := event{kind: "frame", frame: f}
			if ok && !k.wanted(f.node) { // a sampler's, one for each step: some of them are enough
				e.kind, ok = "preview", f.own && time.Since(lastPreview) >= k.s.t.preview
				if ok {
					lastPreview = time.Now()
				}
			}
			if ok && !k.send(ctx, e) {
				return heard
			}
			continue
		}
		// progress_state repeats all nodes at each step of each: reading some of them is enough.
		if bytes.HasPrefix(bytes.TrimPrefix(data, []byte(`{"type": `)), []byte(`"progress_state"`)) {
			if time.Since(lastState) < k.s.t.progress {
				continue
			}
			lastState = time.Now()
		}
		e, ok := k.parse(data)
		if !ok {
			continue
		}
		if e.kind == "executing" {
			executing = ""
			if e.note.Node != nil {
				executing = *e.note.Node
			}
		}
		if !k.send(ctx, e) {
			return heard
		}
		if e.kind == "status" || e.kind == "feature_flags" {
			k.tried()
		}
	}
}

// parse reads a text message, and drops what is about another prompt: ComfyUI broadcasts the progress of prompts that
// came without a client ID.
func (k *socket) parse(data []byte) (event, bool) {
	var m struct {
		Type string          `json:"type"`
		Data json.RawMessage `json:"data"`
	}
	if json.Unmarshal(data, &m) != nil && json.Unmarshal(catalog.Sanitize(data), &m) != nil {
		return event{}, false
	}
	e := event{kind: m.Type}
	if json.Unmarshal(m.Data, &e.note) != nil { // a custom node's own message
		return event{}, false
	}
	id := e.note.PromptID
	switch {
	case id != nil:
		return e, *id == k.id
	case m.Type == "executing": // comes without one when a socket opens while a prompt of its client runs
		return e, e.note.Node != nil
	default:
		return e, m.Type == "status" || m.Type == "feature_flags"
	}
}

// frame reads a binary message: an image that is an output where its node is wanted, and a sampler's preview otherwise.
// One that does not say whose it is may be anybody's, and so is nobody's preview.
func (k *socket) frame(data []byte, executing string) (frame, bool) {
	if len(data) < 8 {
		return frame{}, false
	}
	kind, second, rest := binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]), data[8:]
	f := frame{node: executing, data: rest, ext: ".png"}
	switch kind {
	case binaryImage:
		if second == 1 {
			f.ext = ".jpg"
		}
	case binaryImageWithMetadata:
		if uint64(second) > uint64(len(rest)) {
			return frame{}, false
		}
		var meta struct {
			PromptID string `json:"prompt_id"`
			NodeID   string `json:"node_id"`
			Type     string `json:"image_type"`
		}
		if json.Unmarshal(rest[:second], &meta) != nil || meta.PromptID != k.id {
			return frame{}, false
		}
		f.node, f.data, f.own = meta.NodeID, rest[second:], true
		if strings.Contains(meta.Type, "jpeg") {
			f.ext = ".jpg"
		}
	default:
		return frame{}, false
	}
	return f, f.node != "" && len(f.data) > 0
}
