package fakecomfy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// nanToken stands for a bare NaN until the answer is written.
const nanToken = "@@NaN@@"

const maxBody = 100 << 20

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", s.ws)
	mux.HandleFunc("GET /prompt", func(w http.ResponseWriter, _ *http.Request) { s.reply(w, func() any { return s.infoLocked() }) })
	mux.HandleFunc("POST /prompt", s.postPrompt)
	mux.HandleFunc("GET /history/{id}", s.getHistory)
	mux.HandleFunc("POST /history", s.postHistory)
	mux.HandleFunc("GET /queue", s.getQueue)
	mux.HandleFunc("POST /queue", s.postQueue)
	mux.HandleFunc("POST /interrupt", s.postInterrupt)
	mux.HandleFunc("POST /upload/image", s.postUpload)
	mux.HandleFunc("GET /view", s.view)
	mux.HandleFunc("GET /object_info", func(w http.ResponseWriter, _ *http.Request) { s.reply(w, func() any { return s.info() }) })
	mux.HandleFunc("GET /system_stats", func(w http.ResponseWriter, _ *http.Request) {
		s.reply(w, func() any {
			return map[string]any{"system": map[string]any{"comfyui_version": "0.3.75-fake"}, "devices": []any{map[string]any{"name": "cpu", "type": "cpu", "index": nil}}}
		})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests[r.Method+" "+r.URL.Path]++
		gate, user, pass := s.httpGate, s.user, s.pass
		s.changedLocked()
		s.mu.Unlock()
		gate.pass(r.Context().Done())
		if u, p, _ := r.BasicAuth(); user != "" && (u != user || p != pass) {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		if r.Header.Get("Origin") != "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// reply makes an answer under the lock.
func (s *Server) reply(w http.ResponseWriter, f func() any) {
	s.mu.Lock()
	data, err := json.Marshal(f())
	s.mu.Unlock()
	if err != nil {
		s.tb.Errorf("fakecomfy: %v", err)
	}
	s.write(w, http.StatusOK, data)
}

func (s *Server) write(w http.ResponseWriter, status int, data []byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(bytes.ReplaceAll(data, []byte(`"`+nanToken+`"`), []byte("NaN")))
}

// broken is what aiohttp says when a handler raises.
func broken(w http.ResponseWriter) {
	http.Error(w, "500 Internal Server Error\n\nServer got itself in trouble", http.StatusInternalServerError)
}

func hangUp(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

func (s *Server) postPrompt(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	s.mu.Lock()
	s.posted = append(s.posted, data)
	if len(s.refusals) > 0 {
		a := s.refusals[0]
		s.refusals = s.refusals[1:]
		s.mu.Unlock()
		s.write(w, a.status, []byte(a.body))
		return
	}
	late := s.late
	s.late = nil
	drop, queueFirst := len(s.drops) > 0, false
	if drop {
		queueFirst, s.drops = s.drops[0], s.drops[1:]
	}
	s.mu.Unlock()
	if drop && !queueFirst {
		hangUp(w)
		return
	}
	if late != nil {
		hangUp(w)
		late.pass(nil)
		drop = true
	}
	var body struct {
		Prompt    json.RawMessage            `json:"prompt"`
		PromptID  string                     `json:"prompt_id"`
		ClientID  string                     `json:"client_id"`
		ExtraData map[string]json.RawMessage `json:"extra_data"`
	}
	var graph map[string]node
	if json.Unmarshal(data, &body) != nil || json.Unmarshal(body.Prompt, &graph) != nil {
		broken(w)
		return
	}
	s.mu.Lock()
	outputs, whole, nodeErrors := s.validate(graph)
	if whole != nil {
		s.mu.Unlock()
		answer, _ := json.Marshal(map[string]any{"error": whole, "node_errors": nodeErrors})
		s.write(w, http.StatusBadRequest, answer)
		return
	}
	s.number++
	life := s.life
	p := &prompt{number: float64(s.number), id: body.PromptID, client: body.ClientID, graph: graph, raw: body.Prompt, outputs: outputs, life: life, stop: make(chan struct{})}
	s.queue = append(s.queue, p)
	s.queueChanged()
	s.mu.Unlock()
	s.endWith(p)
	if drop {
		hangUp(w)
		return
	}
	answer, _ := json.Marshal(map[string]any{"prompt_id": p.id, "number": p.number, "node_errors": nodeErrors})
	s.write(w, http.StatusOK, answer)
}

// endWith closes a prompt's stop when the life it belongs to is over.
func (s *Server) endWith(p *prompt) {
	s.engine.Go(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for !s.closed && s.life == p.life && s.history[p.id] == nil {
			s.wake.Wait()
		}
		close(p.stop)
	})
}

func (s *Server) getHistory(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	data := s.history[r.PathValue("id")]
	if data == nil {
		data = []byte("{}")
	} else if s.nan {
		data = bytes.Replace(data, []byte(`"meta":{}`), []byte(`"meta":{"x":"`+nanToken+`"}`), 1)
	}
	s.mu.Unlock()
	s.write(w, http.StatusOK, data)
}

func (s *Server) postHistory(w http.ResponseWriter, r *http.Request) {
	s.deleting(w, r, func(id string) { delete(s.history, id) })
}

func (s *Server) postQueue(w http.ResponseWriter, r *http.Request) {
	s.deleting(w, r, func(id string) {
		before := len(s.queue)
		s.queue = slices.DeleteFunc(s.queue, func(p *prompt) bool { return p.id == id })
		if len(s.queue) != before {
			s.queueChanged()
		}
	})
}

func (s *Server) deleting(w http.ResponseWriter, r *http.Request, f func(id string)) {
	var body struct{ Delete []string }
	if json.NewDecoder(r.Body).Decode(&body) != nil {
		broken(w)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range body.Delete {
		f(id)
	}
}

func (s *Server) getQueue(w http.ResponseWriter, _ *http.Request) {
	s.reply(w, func() any {
		running, pending := []any{}, []any{}
		if s.running != nil {
			running = append(running, s.running.item())
		}
		for _, p := range s.queue {
			pending = append(pending, p.item())
		}
		return map[string]any{"queue_running": running, "queue_pending": pending}
	})
}

func (s *Server) postInterrupt(_ http.ResponseWriter, r *http.Request) {
	var body struct {
		PromptID string `json:"prompt_id"`
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupts = append(s.interrupts, body.PromptID)
	if body.PromptID == "" || s.oldStop || (s.running != nil && s.running.id == body.PromptID) {
		s.interrupted = true
	}
	s.changedLocked()
}

func (s *Server) postUpload(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseMultipartForm(maxBody); err != nil {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	f, header, err := r.FormFile("image")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	defer f.Close()
	data, _ := io.ReadAll(f)
	folder, sub := r.FormValue("type"), r.FormValue("subfolder")
	if folder == "" {
		folder = "input"
	}
	at := path.Clean(join(sub, header.Filename))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[folder] == nil {
		broken(w)
		return
	}
	if strings.HasPrefix(at, "..") || header.Filename == "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	name := header.Filename
	if old := s.files[folder][at]; old != nil && r.FormValue("overwrite") != "true" && !bytes.Equal(old.data, data) {
		ext := path.Ext(name)
		name = strings.TrimSuffix(name, ext) + " (1)" + ext
	}
	s.files[folder][join(sub, name)] = &file{data, time.Now()}
	answer, _ := json.Marshal(map[string]any{"name": name, "subfolder": sub, "type": folder})
	s.write(w, http.StatusOK, answer)
}

func (s *Server) view(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	name, folder := q.Get("filename"), q.Get("type")
	if folder == "" {
		folder = "output"
	}
	if name == "" || name[0] == '/' || strings.Contains(name, "..") {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	f, cut := s.files[folder][join(q.Get("subfolder"), path.Base(name))], s.cut
	known, gate := s.files[folder] != nil, s.viewGate
	s.mu.Unlock()
	gate.pass(r.Context().Done())
	switch {
	case !known:
		w.WriteHeader(http.StatusBadRequest)
		return
	case f == nil:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, f.at.UnixNano(), len(f.data)))
	if cut < 0 || r.Method == http.MethodHead {
		http.ServeContent(w, r, name, f.at, bytes.NewReader(f.data))
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(f.data)))
	_, _ = w.Write(f.data[:min(cut, len(f.data))])
	_ = http.NewResponseController(w).Flush()
	hangUp(w)
}
