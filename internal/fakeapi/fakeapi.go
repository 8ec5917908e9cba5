// Package fakeapi is a scripted comfyd API for the tests of what calls it: it follows the HTTP contract, and a test says
// what happens to which call.
package fakeapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/require"
)

// ID is the job's that the server accepts.
const ID = "job-1"

// Server is one scripted API.
type Server struct {
	URL string
	// Key, where set, is asked of every call but those for outputs.
	Key string

	t    testing.TB
	addr string
	srv  *httptest.Server

	mu       sync.Mutex
	once     map[string][]http.HandlerFunc
	statuses []string
	outputs  map[string][]byte
	calls    []Call
}

// Call is a request that came.
type Call struct {
	Method, Path, Query string
	Header              http.Header
	Body                []byte
}

// New starts a server; it ends with the test.
func New(t testing.TB) *Server {
	s := &Server{t: t, addr: "127.0.0.1:0", once: map[string][]http.HandlerFunc{}, outputs: map[string][]byte{}}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start serves, after a Stop at the same address. It waits for one that somebody else has taken in between, for a
// connection of theirs perhaps.
func (s *Server) Start() {
	s.t.Helper()
	l, err := backoff.Retry(s.t.Context(), func() (net.Listener, error) {
		l, err := net.Listen("tcp", s.addr)
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			err = backoff.Permanent(err)
		}
		return l, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(100*time.Millisecond)), backoff.WithMaxElapsedTime(30*time.Second))
	require.NoError(s.t, err)
	s.addr = l.Addr().String()
	s.srv = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(s.serve)}}
	s.srv.Start()
	s.URL = s.srv.URL
}

// Stop cuts every connection and listens no more.
func (s *Server) Stop() {
	s.srv.CloseClientConnections()
	s.srv.Close()
}

// Next lets h answer the next calls whose "METHOD /path" begins with call, one each, before the usual answers.
func (s *Server) Next(call string, h ...http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.once[call] = append(s.once[call], h...)
}

// Statuses are the answers to GET /status, one a call; the last one stays. What is not RUNNING answers 200.
func (s *Server) Statuses(bodies ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statuses = bodies
}

// Output serves data and returns its JSON in a status with links.
func (s *Server) Output(filename string, data []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := fmt.Sprintf("/outputs/%d", len(s.outputs))
	s.outputs[path] = data
	sum := sha256.Sum256(data)
	b, err := json.Marshal(map[string]any{
		"filename": filename, "type": "url", "url": s.URL + path + "?sig=x", "node_id": "9",
		"size_bytes": len(data), "sha256": hex.EncodeToString(sum[:]),
	})
	require.NoError(s.t, err)
	return string(b)
}

// Calls are the requests so far whose "METHOD /path" begins with call.
func (s *Server) Calls(call string) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Call
	for _, c := range s.calls {
		if strings.HasPrefix(c.Method+" "+c.Path, call) {
			found = append(found, c)
		}
	}
	return found
}

// Answer is a handler that sends one JSON answer. Headers are "Name: value".
func Answer(code int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// Break is a handler that cuts the connection.
func Break(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.calls = append(s.calls, Call{r.Method, r.URL.Path, r.URL.RawQuery, r.Header, body})
	next := s.next(r)
	s.mu.Unlock()
	next(w, r)
}

func (s *Server) next(r *http.Request) http.HandlerFunc {
	call := r.Method + " " + r.URL.Path
	data, output := s.outputs[r.URL.Path]
	if !output && s.Key != "" && r.Header.Get("Authorization") != "Bearer "+s.Key {
		return Answer(http.StatusUnauthorized, `{"error":"This key is not known.","code":"unauthorized"}`)
	}
	for prefix, queue := range s.once {
		if strings.HasPrefix(call, prefix) && len(queue) > 0 {
			s.once[prefix] = queue[1:]
			return queue[0]
		}
	}
	switch {
	case output:
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }
	case call == "POST /submit_workflow":
		return Answer(http.StatusAccepted, `{"id":"`+ID+`","status":"RUNNING","status_url":"`+s.URL+`/status/`+ID+`"}`)
	case call == "POST /inputs":
		return Answer(http.StatusCreated, `{"name":"x","ref":"inputs/abc","sha256":"abc","size_bytes":1}`)
	case call == "POST /cancel/"+ID:
		return Answer(http.StatusAccepted, `{"id":"`+ID+`","status":"RUNNING","phase":"canceling"}`)
	case call == "DELETE /jobs/"+ID:
		return Answer(http.StatusNoContent, "")
	case call == "GET /jobs":
		return Answer(http.StatusOK, `{"jobs":[{"id":"`+ID+`","status":"RUNNING","created_at":"2026-01-31T18:30:00Z","status_url":"`+s.URL+`/status/`+ID+`"}]}`)
	case call == "GET /status/"+ID && len(s.statuses) > 0:
		body := s.statuses[0]
		if len(s.statuses) > 1 {
			s.statuses = s.statuses[1:]
		}
		if strings.Contains(body, `"RUNNING"`) {
			return Answer(http.StatusAccepted, body)
		}
		return Answer(http.StatusOK, body)
	}
	return Answer(http.StatusNotFound, `{"error":"Call ID not found or invalid.","code":"not_found"}`)
}
