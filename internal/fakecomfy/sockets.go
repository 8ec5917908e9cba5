package fakecomfy

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"
)

// socket is one open WebSocket. What it is told goes through a queue, as in ComfyUI.
type socket struct {
	id       string
	conn     *websocket.Conn
	out      chan message
	gone     context.CancelFunc
	metadata bool // it wants frames that say their node
	taken    bool // out of the table by the one who breaks it
}

type message struct {
	binary bool
	data   []byte
}

func (k *socket) drop() {
	k.gone()
	_ = k.conn.CloseNow()
}

func (k *socket) put(m message) {
	select {
	case k.out <- m:
	default: // a reader that is 10,000 messages behind
	}
}

func (k *socket) binary(data []byte) { k.put(message{binary: true, data: data}) }

// takeSockets empties the table for one who breaks what was in it: the other side can open a new one only afterwards, and
// that must not be forgotten in place of the old one. The caller holds mu.
func (s *Server) takeSockets() []*socket {
	var out []*socket
	for _, k := range s.sockets {
		k.taken = true
		out = append(out, k)
	}
	clear(s.sockets)
	s.changedLocked()
	return out
}

func (s *Server) ws(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	refuse := s.noSockets
	s.mu.Unlock()
	if refuse {
		http.Error(w, "no", http.StatusServiceUnavailable)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &socket{id: r.URL.Query().Get("clientId"), conn: conn, out: make(chan message, 10_000), gone: cancel}
	s.mu.Lock()
	if k.id == "" {
		s.number++
		k.id = "anonymous-" + strconv.Itoa(s.number)
	}
	s.sockets[k.id] = k
	s.sendLocked(k, "status", map[string]any{"status": s.infoLocked(), "sid": k.id})
	if p := s.running; p != nil && p.client == k.id && p.node != "" {
		s.sendLocked(k, "executing", map[string]any{"node": p.node})
	}
	s.changedLocked()
	s.mu.Unlock()
	go k.write(ctx)
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			break
		}
		var m struct {
			Type string
			Data struct {
				Metadata bool `json:"supports_preview_metadata"`
			}
		}
		if json.Unmarshal(data, &m) == nil && m.Type == "feature_flags" {
			s.mu.Lock()
			k.metadata = m.Data.Metadata
			s.sendLocked(k, "feature_flags", map[string]any{"supports_preview_metadata": true})
			s.mu.Unlock()
		}
	}
	k.drop()
	s.mu.Lock()
	if !k.taken {
		delete(s.sockets, k.id) // whichever it is by now: ComfyUI's own bug
		s.changedLocked()
	}
	s.mu.Unlock()
}

func (k *socket) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-k.out:
			kind := websocket.MessageText
			if m.binary {
				kind = websocket.MessageBinary
			}
			wctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			err := k.conn.Write(wctx, kind, m.data)
			cancel()
			if err != nil {
				return
			}
		}
	}
}

// send tells the socket of a prompt's client, or all sockets without a prompt.
func (s *Server) send(p *prompt, kind string, data map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, k := range s.sockets {
		if p == nil || id == p.client {
			s.sendLocked(k, kind, data)
		}
	}
}

func (s *Server) sendLocked(k *socket, kind string, data map[string]any) {
	if s.muted {
		return
	}
	b, err := json.Marshal(map[string]any{"type": kind, "data": data})
	if err != nil {
		s.tb.Errorf("fakecomfy: %v", err)
		return
	}
	k.put(message{data: b})
}

// sendImage sends a frame for a node in the form that the client can read.
func (s *Server) sendImage(p *prompt, node, kind string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.sockets[p.client]
	if k == nil || s.muted {
		return
	}
	var b []byte
	if k.metadata {
		meta, _ := json.Marshal(map[string]any{"node_id": node, "prompt_id": p.id, "image_type": "image/" + kind})
		b = binary.BigEndian.AppendUint32(b, 4)
		b = binary.BigEndian.AppendUint32(b, uint32(len(meta)))
		b = append(b, meta...)
	} else {
		format := uint32(1)
		if kind == "png" {
			format = 2
		}
		b = binary.BigEndian.AppendUint32(b, 1)
		b = binary.BigEndian.AppendUint32(b, format)
	}
	k.binary(append(b, data...))
}

func (s *Server) infoLocked() map[string]any {
	n := len(s.queue)
	if s.running != nil {
		n++
	}
	return map[string]any{"exec_info": map[string]any{"queue_remaining": n}}
}

// queueChanged tells every socket the length of the queue. The caller holds mu.
func (s *Server) queueChanged() {
	for _, k := range s.sockets {
		s.sendLocked(k, "status", map[string]any{"status": s.infoLocked()})
	}
	s.changedLocked()
}
