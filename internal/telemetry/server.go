package telemetry

import (
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Server answers GET /metrics, and nothing else, on a listener of its own. With a key it wants that: "Authorization:
// Bearer KEY".
func (t *Telemetry) Server(key string) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", Guard(t.Handler(), key))
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
}

// needsKey is an error as the API words it.
const needsKey = `{"error":"A key is needed, as Authorization: Bearer <key>: that of COMFYD_METRICS_KEY, or where it is not set, the API's only key.","code":"unauthorized"}`

// Guard lets requests with the key pass; an empty key is none.
func Guard(h http.Handler, key string) http.Handler {
	if key == "" {
		return h
	}
	want := sha256.Sum256([]byte(key))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(secret)))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="comfyd metrics"`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, needsKey) // who has left needs no answer
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Request counts an answer of the API. Route is a template, never a path.
func (t *Telemetry) Request(route, method string, status int, took time.Duration) {
	t.requests.WithLabelValues(route, method, strconv.Itoa(status)).Observe(took.Seconds())
}
