package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	aliceSecret = "the-api-key-of-alice-0123456789"
	bobSecret   = "the-api-key-of-bob-9876543210"
	signingKey  = "the-signing-key-0123456789abcdef0123456789"
)

// gpu counts how often prompts were handed to a GPU.
type gpu interface {
	// runs counts those whose graph has the mark.
	runs(mark string) int
}

// world is a comfyd in some shape, its clients, and what they have seen. Every test ends with check.
type world struct {
	t          *testing.T
	dir        string // nothing may appear in it outside data and logs
	history    *History
	alice, bob *Client
	temporal   string // address of the Temporal server
	api        *process
	all        []*process
	gpu        gpu
	within     time.Duration
	allowed    []string // parts of dir where strangers may write
	local      bool     // comfyd has a ComfyUI of its own
	every      int      // of so many jobs, check looks at the history and the bytes of one
	mail       *mailbox // nil where no job has a webhook

	mu      sync.Mutex
	fires   []string
	secrets map[string][]byte
	owners  map[string]*Client // by job
	checked bool
	number  int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	beside(t)
	return newLoneWorld(t)
}

// beside lets a test run beside others in the short form: the rows mostly wait. The long form measures, and wants the
// machine for itself. A test whose worlds are in its subtests calls it, too: the next one would wait for them otherwise.
func beside(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Parallel()
	}
}

// newLoneWorld is for a test that others would disturb: at the real ComfyUI, which they share, or in what it measures.
func newLoneWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), history: &History{}, within: 15 * time.Minute, every: 1, owners: map[string]*Client{}, secrets: map[string][]byte{
		"the API key of alice": []byte(aliceSecret), "the API key of bob": []byte(bobSecret), "the signing key": []byte(signingKey),
	}}
	for _, d := range []string{"data", "logs", "home", "tmp", "cwd"} {
		require.NoError(t, os.Mkdir(filepath.Join(w.dir, d), 0o700))
	}
	w.alice = &Client{Tenant: "alice", Secret: aliceSecret, History: w.history}
	w.bob = &Client{Tenant: "bob", Secret: bobSecret, History: w.history}
	t.Cleanup(func() {
		for _, p := range w.all {
			if p.alive() && w.local {
				p.signal(syscall.SIGTERM) // and its ComfyUI with it
			} else if p.alive() {
				p.kill()
			}
			if t.Failed() {
				raw, _ := os.ReadFile(p.log)
				t.Logf("%s said at last:\n%s", p.name, raw[max(0, len(raw)-8000):])
			}
		}
		if !t.Failed() && !t.Skipped() {
			require.True(t, w.checked, "a test must end with check")
		}
	})
	return w
}

func (w *world) process(name, path string, args, vars []string) *process {
	p := &process{t: w.t, name: name, path: path, args: args, dir: filepath.Join(w.dir, "cwd"), log: filepath.Join(w.dir, "logs", name)}
	p.vars = append([]string{"HOME=" + filepath.Join(w.dir, "home"), "TMPDIR=" + filepath.Join(w.dir, "tmp")}, vars...)
	w.all = append(w.all, p)
	return p
}

func (w *world) data(name string) string { return filepath.Join(w.dir, "data", name) }

// comfyd prepares a process in a role, with a data folder of its own.
func (w *world) comfyd(role, name string, vars ...string) *process {
	common := []string{"COMFYD_DATA_DIR=" + w.data(name), "COMFYD_API_KEYS=alice:" + aliceSecret + ",bob:" + bobSecret,
		"COMFYD_SIGNING_KEY=" + signingKey, "COMFYD_LOG_LEVEL=debug"}
	p := w.process(name, comfydBin, []string{role}, append(common, vars...))
	if role != "worker" {
		listen := freePort(w.t)
		p.url = "http://" + listen
		p.vars = append(p.vars, "COMFYD_LISTEN="+listen)
		w.api, w.alice.URL, w.bob.URL = p, p.url, p.url
	}
	return p
}

// serve starts everything in one process.
func (w *world) serve(vars ...string) *process {
	w.t.Helper()
	return w.serveFrom(comfydBin, vars...)
}

// serveFrom is serve with a program of its own.
func (w *world) serveFrom(path string, vars ...string) *process {
	w.t.Helper()
	w.temporal = freePort(w.t)
	p := w.comfyd("serve", "serve", append([]string{"COMFYD_TEMPORAL_LISTEN=" + w.temporal, "COMFYD_TEMPORAL_UI_LISTEN=" + freePort(w.t)}, vars...)...)
	p.path = path
	p.start()
	return p
}

// temporald starts a Temporal server alone.
func (w *world) temporald() *process {
	w.t.Helper()
	w.temporal = freePort(w.t)
	p := w.process("temporald", temporaldBin, []string{w.data("temporal"), w.temporal}, nil)
	p.launch()
	return p
}

// apart are the settings of processes that meet at a Temporal server.
func (w *world) apart(vars ...string) []string {
	return append([]string{"TEMPORAL_ADDRESS=" + w.temporal, "COMFYD_STORE_URL=file://" + w.data("blobs")}, vars...)
}

// job is a submission: its graph, and what stands beside it.
type job struct {
	graph string // with @MARK@ where its mark goes
	key   string
	more  map[string]any
}

// send submits a job, whatever comes of it.
func (w *world) send(j job) *Event { return w.sendBy(w.alice, j) }

func (w *world) sendBy(c *Client, j job) *Event {
	w.mu.Lock()
	w.number++
	mark := fmt.Sprintf("mark-%d-%d", time.Now().UnixNano(), w.number)
	w.mu.Unlock()
	if j.key != "" {
		mark = "mark-" + j.key // the same body again
	}
	body := map[string]any{"workflow": json.RawMessage(strings.ReplaceAll(j.graph, "@MARK@", mark))}
	for k, v := range j.more {
		body[k] = v
	}
	header := http.Header{}
	if j.key != "" {
		header.Set("Idempotency-Key", j.key)
	}
	e := c.Do(context.Background(), "POST", "/submit_workflow", "", body, header)
	if e.Code == http.StatusAccepted {
		w.history.Mark(e.Job, mark)
		w.mu.Lock()
		w.owners[e.Job] = c
		w.mu.Unlock()
	}
	return e
}

// owner is the client whose job it is, and stranger one of another tenant, nil where there is none.
func (w *world) owner(id string) *Client {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.owners[id]; c != nil && w.bob != nil && c.Tenant == w.bob.Tenant {
		return w.bob
	}
	return w.alice
}

func (w *world) stranger(id string) *Client {
	if w.owner(id) == w.bob {
		return w.alice
	}
	return w.bob
}

// submit sends a job that must be accepted.
func (w *world) submit(graph string) string {
	w.t.Helper()
	e := w.send(job{graph: graph})
	require.Equal(w.t, http.StatusAccepted, e.Code, "%v %s", e.Body, e.Err)
	return e.Job
}

func (w *world) status(id string) *Event {
	return w.owner(id).Do(context.Background(), "GET", "/status/"+id, id, nil, nil)
}

// running waits until a job has made some progress.
func (w *world) running(id string) {
	w.t.Helper()
	w.phase(id, func(e *Event) bool {
		progress, _ := e.Body["progress"].(map[string]any)
		value, _ := progress["value"].(float64)
		return e.Body["phase"] == "running" && value > 0
	}, "it runs")
}

// phase waits until a job that is open is in a state.
func (w *world) phase(id string, is func(*Event) bool, what string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		e := w.status(id)
		require.False(w.t, ended(e.State()), "job %s ended too early: %v", id, e.Body)
		return is(e)
	}, 10*time.Minute, 20*time.Millisecond, "job %s: %s", id, what)
}

// finish polls a job to its end.
func (w *world) finish(id string) map[string]any {
	w.t.Helper()
	for end := time.Now().Add(w.within); time.Now().Before(end); {
		e := w.owner(id).Do(context.Background(), "GET", "/status/"+id+"?wait=5", id, nil, nil)
		if ended(e.State()) {
			return e.Body
		}
		if e.Code != http.StatusAccepted {
			<-time.After(50 * time.Millisecond) // nothing there to wait for us
		}
	}
	w.t.Fatalf("job %s has not ended in %s", id, w.within)
	return nil
}

// ends is finish, in a state.
func (w *world) ends(id, state string) map[string]any {
	w.t.Helper()
	status := w.finish(id)
	require.Equal(w.t, state, status["status"], "%v", status)
	return status
}

// completes is finish, and the job must have made what it should, in so many attempts.
func (w *world) completes(id string, attempts int) map[string]any {
	w.t.Helper()
	status := w.ends(id, "COMPLETED")
	require.EqualValues(w.t, attempts, status["attempts"], "%v", status)
	return status
}

// fails is finish, and the job must have failed with a code.
func (w *world) fails(id, code string) map[string]any {
	w.t.Helper()
	status := w.ends(id, "FAILED")
	require.Equal(w.t, code, status["code"], "%v", status)
	require.NotEmpty(w.t, status["error"])
	return status
}

// fired notes that the fault has happened. A test in which it has not proves nothing.
func (w *world) fired(happened bool, what string) {
	w.t.Helper()
	require.True(w.t, happened, "the fault did not fire: %s", what)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fires = append(w.fires, what)
}

// accepted are the jobs that were acknowledged.
func (w *world) accepted() []string {
	var ids []string
	for _, e := range w.history.Events() {
		if isSubmission(e) && e.Code == http.StatusAccepted && !slices.Contains(ids, e.Job) {
			ids = append(ids, e.Job)
		}
	}
	return ids
}
