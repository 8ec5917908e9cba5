package cluster_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/cluster"
)

// patience is how long a job may take here, whatever is killed meanwhile.
const patience = 3 * time.Minute

// lag is how long a replica may still call a job RUNNING that another one has called ended: it trusts what it has seen for
// 250 ms (api/cache.go), and both may be busy.
const lag = 2 * time.Second

// users are clients that know nothing but the PRD: they submit with a key, poll any replica, and try again when nobody
// answers or 503 says so. They keep a record of each job, and notice what must never happen.
type users struct {
	*cluster.Cluster
	key  string // the tenant's
	t    *testing.T
	http *http.Client
	turn atomic.Int64 // which replica is next

	mu      sync.Mutex
	jobs    []*record
	wrong   []string
	refused map[string]int // answers that say: come again
}

// record is what the users have seen of a job.
type record struct {
	id       string
	sent     time.Time
	ended    time.Time
	status   string
	attempts int
}

func newUsers(t *testing.T, c *cluster.Cluster) *users {
	// A client of each replica sees it go and come; kept connections to one that is gone are noticed by the answer.
	return &users{Cluster: c, key: c.Key, t: t, http: &http.Client{Timeout: time.Minute}, refused: map[string]int{}}
}

func (u *users) say(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.wrong = append(u.wrong, fmt.Sprintf(format, args...))
}

type answer struct {
	code   int
	header http.Header
	body   map[string]any
}

// call asks the next replica once.
func (u *users) call(method, path string, body []byte, key string) (answer, error) {
	url := u.URLs[u.turn.Add(1)%2] + path
	req, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+u.key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := u.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{code: res.StatusCode, header: res.Header}
	if err := json.Unmarshal(raw, &a.body); err != nil {
		u.say("%s %s answered %d with what is no JSON: %.100s", method, path, a.code, raw)
	}
	return a, nil
}

// insist calls until somebody answers other than 503. Nothing else may be the reason to try again.
func (u *users) insist(method, path string, body []byte, key string) (answer, bool) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		a, err := u.call(method, path, body, key)
		why := "no connection"
		switch {
		case err == nil && a.code != http.StatusServiceUnavailable:
			return a, true
		case err == nil:
			why = fmt.Sprint("503 ", a.body["code"])
			if a.header.Get("Retry-After") == "" {
				u.say("%s %s: a 503 without Retry-After: %v", method, path, a.body)
			}
		}
		u.mu.Lock()
		u.refused[why]++
		u.mu.Unlock()
	}
	u.say("%s %s is not answered in %s", method, path, patience)
	return answer{}, false
}

// submit sends a job under a key of its own until it is accepted.
func (u *users) submit(body map[string]any, key string) *record {
	raw, err := json.Marshal(body)
	if err != nil {
		u.say("%v", err)
		return nil
	}
	a, ok := u.insist("POST", "/submit_workflow", raw, key)
	if !ok {
		return nil
	}
	id, _ := a.body["id"].(string)
	if a.code != http.StatusAccepted || id == "" {
		u.say("a submission is answered %d: %v", a.code, a.body)
		return nil
	}
	r := &record{id: id, sent: time.Now()}
	u.mu.Lock()
	u.jobs = append(u.jobs, r)
	u.mu.Unlock()
	return r
}

// follow polls a job to its end, once more afterwards, and checks its files.
func (u *users) follow(r *record) map[string]any {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		a, ok := u.insist("GET", "/status/"+r.id+"?wait=2", nil, "")
		if !ok {
			return nil
		}
		if a.code == http.StatusAccepted {
			continue
		}
		if a.code != http.StatusOK {
			u.say("job %s, which was accepted, is answered %d: %v", r.id, a.code, a.body)
			return nil
		}
		u.mu.Lock()
		r.ended, r.status = time.Now(), fmt.Sprint(a.body["status"])
		n, _ := a.body["attempts"].(float64)
		r.attempts = int(n)
		u.mu.Unlock()
		if r.status == "FAILED" {
			u.say("job %s has failed: %v (%v)", r.id, a.body["error"], a.body["code"])
		}
		u.checkFiles(r, a.body)
		u.askAgain(r)
		return a.body
	}
	u.say("job %s has no end after %s", r.id, patience)
	return nil
}

// askAgain asks both replicas how an ended job is. One that has looked a moment before the end may say RUNNING, for no longer
// than it trusts what it has seen; nobody may ever say anything else.
func (u *users) askAgain(r *record) {
	for range 2 {
		for {
			asked := time.Now()
			a, ok := u.insist("GET", "/status/"+r.id, nil, "")
			if !ok || a.body["status"] == r.status {
				break
			}
			if a.code != http.StatusAccepted || asked.Sub(r.ended) > lag {
				u.say("job %s was %s, and asked %s later it is %v", r.id, r.status, asked.Sub(r.ended), a.body["status"])
				break
			}
		}
	}
}

func (u *users) checkFiles(r *record, body map[string]any) {
	if r.status != "COMPLETED" {
		return
	}
	out, _ := body["output"].(map[string]any)
	files := 0
	for _, list := range []string{"images", "files"} {
		all, _ := out[list].([]any)
		for _, f := range all {
			file, _ := f.(map[string]any)
			text, _ := file["data"].(string)
			raw, err := base64.StdEncoding.DecodeString(text)
			sum := sha256.Sum256(raw)
			if err != nil || hex.EncodeToString(sum[:]) != file["sha256"] || file["size_bytes"] != float64(len(raw)) {
				u.say("job %s: %v is not what it says it is", r.id, file["filename"])
			}
			files++
		}
	}
	if files == 0 {
		texts, _ := out["texts"].([]any)
		if len(texts) == 0 {
			u.say("job %s is COMPLETED with nothing", r.id)
		}
	}
}

// ended counts jobs that have.
func (u *users) ended() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for _, r := range u.jobs {
		if !r.ended.IsZero() {
			n++
		}
	}
	return n
}

// sentAway counts requests that were told to come again.
func (u *users) sentAway() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for _, times := range u.refused {
		n += times
	}
	return n
}

// since returns when the first and the last of the jobs that were open at a moment have ended, and how many those were.
func (u *users) since(moment time.Time) (first, last time.Duration, open int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range u.jobs {
		if r.sent.Before(moment) && r.ended.After(moment) {
			d := r.ended.Sub(moment)
			if open == 0 || d < first {
				first = d
			}
			last = max(last, d)
			open++
		}
	}
	return first, last, open
}

// check holds the record against the promises: all ended, all completed, no more runs than attempts.
func (u *users) check(runs int) {
	u.t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	require.Empty(u.t, u.wrong)
	ids, attempts := map[string]bool{}, 0
	for _, r := range u.jobs {
		require.Equal(u.t, "COMPLETED", r.status, "job %s", r.id)
		require.False(u.t, ids[r.id], "an id is given once")
		ids[r.id] = true
		attempts += r.attempts
	}
	require.NotEmpty(u.t, u.jobs)
	if runs >= 0 {
		require.LessOrEqual(u.t, runs, attempts, "each run of the GPU is in attempts")
		require.GreaterOrEqual(u.t, runs, len(u.jobs), "each job ran")
	}
	u.t.Logf("%d jobs, %d attempts, %d runs; told to come again: %v", len(u.jobs), attempts, runs, u.refused)
}
