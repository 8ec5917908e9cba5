package faults

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	_ "image/gif"  // outputs are decoded
	_ "image/jpeg" // likewise
	_ "image/png"  // likewise
	"net/http"
	"strings"
	"time"
)

// Violation is a broken promise.
type Violation struct {
	Invariant string // "I1" to "I9", as docs/faults.md names them
	Job       string
	Text      string
}

func (v Violation) String() string { return fmt.Sprintf("%s %s: %s", v.Invariant, v.Job, v.Text) }

// notFound is what every job looks like that is not the caller's.
const notFound = "Call ID not found or invalid."

// Evidence is all that is known after a test.
type Evidence struct {
	Events []*Event
	// Within is the time from a 202 in which each job must have ended.
	Within time.Duration
	// Runs counts, by job, how often a GPU was given it. Nil where nobody counted.
	Runs map[string]int
	// Jobs is how many jobs Temporal has; -1 where nobody looked.
	Jobs int
	// Withdrawn is how many of them no client knows and were canceled, as those of submissions without a key must be that
	// were refused because Temporal did not say whether it had taken them.
	Withdrawn int
	// Messages are what receivers of webhooks got, and Told the jobs of which one must have taken a message.
	Messages []Message
	Told     []string
	// Stray are the files that lie where none should.
	Stray []string
	// Texts are logs, histories and what else must hold no secret, by name.
	Texts map[string][]byte
	// Secrets are what must not stand there, by name.
	Secrets map[string][]byte
}

// Check returns what is broken; nothing is good.
func Check(e *Evidence) []Violation {
	c := &checker{Evidence: e, jobs: map[string]*seen{}}
	c.read()
	for _, id := range c.order {
		c.job(id, c.jobs[id])
	}
	c.keys()
	c.tenants()
	c.webhooks()
	for _, f := range e.Stray {
		c.bad("I8", "", "a file outside the data folder: %s", f)
	}
	for name, text := range e.Texts {
		for secret, needle := range e.Secrets {
			if i := bytes.Index(text, needle); i >= 0 {
				c.bad("I9", "", "%s stands in %s: ...%q", secret, name, text[max(0, i-60):i])
			}
		}
	}
	return c.found
}

type checker struct {
	*Evidence
	jobs  map[string]*seen
	order []string
	found []Violation
}

// seen is what was seen of a job by its own tenant.
type seen struct {
	tenant   string
	accepted time.Time
	end      *Event   // the first terminal answer
	last     *Event   // the last one
	polled   bool     // again, after the end
	told     []*Event // ends that answers to a cancel named, which say no more than that
}

func (c *checker) bad(invariant, job, format string, args ...any) {
	c.found = append(c.found, Violation{invariant, job, fmt.Sprintf(format, args...)})
}

func isSubmission(e *Event) bool {
	return e.Method == http.MethodPost && e.Path == "/submit_workflow"
}

// read goes over the events once, in the order in which their answers came.
func (c *checker) read() {
	for _, e := range c.Events {
		if isSubmission(e) && e.Code == http.StatusAccepted && c.jobs[e.Job] == nil {
			c.jobs[e.Job] = &seen{tenant: e.Tenant, accepted: e.Ended}
			c.order = append(c.order, e.Job)
		}
	}
	for _, e := range c.Events {
		j := c.jobs[e.Job]
		if j == nil || e.Tenant != j.tenant || isSubmission(e) || strings.HasSuffix(e.Path, "/webhook/replay") {
			continue
		}
		c.answer(e, j)
	}
}

// answer holds one answer about a job against what was said before.
func (c *checker) answer(e *Event, j *seen) {
	state := e.State()
	switch {
	case ended(state) && e.Method == http.MethodPost:
		j.told = append(j.told, e)
	case ended(state) && j.end == nil:
		j.end, j.last = e, e
	case ended(state):
		j.polled, j.last = true, e
		if was, is := essence(j.end.Body), essence(e.Body); was != is {
			c.bad("I2", e.Job, "its end has changed: first %s, then %s", was, is)
		}
	case j.end != nil && e.Began.After(j.end.Ended) && (state == "RUNNING" || e.Code == http.StatusNotFound):
		c.bad("I2", e.Job, "after its end it was answered %d %s", e.Code, state)
	case e.Code == http.StatusNotFound:
		c.bad("I1", e.Job, "acknowledged, and then a 404")
	case state == "" && e.Code >= 200 && e.Code < 300:
		c.bad("I1", e.Job, "an answer %d that says nothing: %v", e.Code, e.Body)
	}
}

// essence is an answer without what may differ from one call to the next: the form of the outputs' bytes.
func essence(body map[string]any) string {
	var strip func(v any) any
	strip = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			out := map[string]any{}
			for k, x := range v {
				switch k {
				case "data", "url", "url_expires_at", "zip_url":
				case "type":
					if x != "base64" && x != "url" {
						out[k] = x
					}
				default:
					out[k] = strip(x)
				}
			}
			return out
		case []any:
			out := make([]any, len(v))
			for i := range v {
				out[i] = strip(v[i])
			}
			return out
		}
		return v
	}
	raw, err := json.Marshal(strip(body))
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

func (c *checker) job(id string, j *seen) {
	if j.end == nil {
		c.bad("I1", id, "acknowledged at %s and never seen to end", j.accepted.Format(time.TimeOnly))
		return
	}
	if took := j.end.Ended.Sub(j.accepted); took > c.Within {
		c.bad("I1", id, "it ended %s after its 202; %s was its limit", took, c.Within)
	}
	if !j.polled {
		c.bad("I2", id, "nobody asked again after its end")
	}
	for _, e := range j.told {
		if e.State() != j.end.State() {
			c.bad("I2", id, "a cancel was answered %s, and the job has ended %s", e.State(), j.end.State())
		}
	}
	for _, e := range []*Event{j.end, j.last} {
		if e.State() == "COMPLETED" {
			c.outputs(id, e)
		}
	}
	attempts, _ := j.end.Body["attempts"].(float64)
	if runs := c.Runs[id]; float64(runs) > attempts {
		c.bad("I4", id, "a GPU was given it %d times, and %v attempts are told", runs, attempts)
	}
}

// outputs checks the bytes of an answer.
func (c *checker) outputs(id string, e *Event) {
	out, _ := e.Body["output"].(map[string]any)
	n := 0
	for _, list := range []string{"images", "files"} {
		all, _ := out[list].([]any)
		for _, o := range all {
			n++
			if err := whole(o.(map[string]any)); err != nil {
				c.bad("I3", id, "%s %v: %v", list, o.(map[string]any)["filename"], err)
			}
		}
	}
	texts, _ := out["texts"].([]any)
	if n+len(texts) == 0 {
		c.bad("I3", id, "COMPLETED without any output")
	}
}

// whole tells what is wrong with an output that came inline.
func whole(o map[string]any) error {
	data, ok := o["data"].(string)
	if !ok {
		if o["type"] == "url" {
			return nil // its bytes are elsewhere; another poll has them inline
		}
		return fmt.Errorf("it has no data")
	}
	raw, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return fmt.Errorf("its base64: %w", err)
	}
	sum := sha256.Sum256(raw)
	if size, _ := o["size_bytes"].(float64); int(size) != len(raw) {
		return fmt.Errorf("%d bytes came, size_bytes is %v", len(raw), o["size_bytes"])
	}
	if o["sha256"] != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("its bytes have the sha256 %x, not %v", sum, o["sha256"])
	}
	switch o["content_type"] {
	case "image/png", "image/jpeg", "image/gif":
		if _, _, err := image.Decode(bytes.NewReader(raw)); err != nil {
			return fmt.Errorf("it does not decode: %w", err)
		}
	}
	return nil
}

// keys checks that one key is one job, and that there are no more jobs than clients know of.
func (c *checker) keys() {
	byKey, unknown := map[[2]string]string{}, map[[2]string]bool{}
	loose := 0   // submissions without a key, or with one that was never answered: each may have become a job
	refused := 0 // submissions without a key that were a 503: each may have become a job that is canceled
	for _, e := range c.Events {
		if !isSubmission(e) {
			continue
		}
		key := [2]string{e.Tenant, e.Key}
		switch {
		case e.Code == http.StatusAccepted && e.Key != "":
			if before := byKey[key]; before != "" && before != e.Job {
				c.bad("I7", e.Job, "the key %q had made the job %s already", e.Key, before)
			}
			byKey[key] = e.Job
		case e.Code == 0 && e.Key == "":
			loose++
		case e.Code == http.StatusServiceUnavailable && e.Key == "":
			refused++
		case e.Code == 0:
			unknown[key] = true
		}
	}
	for key := range unknown {
		if byKey[key] == "" {
			loose++
		}
	}
	if c.Jobs < 0 {
		return
	}
	if c.Jobs < len(c.jobs) {
		c.bad("I1", "", "%d jobs were acknowledged, and Temporal has %d", len(c.jobs), c.Jobs)
	}
	if c.Jobs > len(c.jobs)+loose+min(c.Withdrawn, refused) {
		c.bad("I7", "", "Temporal has %d jobs; clients know of %d, and of %d submissions nobody knows what became", c.Jobs, len(c.jobs), loose)
	}
}

// tenants checks that nobody sees another's job.
func (c *checker) tenants() {
	for _, e := range c.Events {
		j := c.jobs[e.Job]
		if j == nil || e.Tenant == j.tenant || e.Code == 0 || e.Code >= 500 || isSubmission(e) {
			continue
		}
		if e.Code != http.StatusNotFound || e.Body["error"] != notFound || strings.Contains(essence(e.Body), "attempts") {
			c.bad("I6", e.Job, "%s was answered %d %s", e.Tenant, e.Code, essence(e.Body))
		}
	}
}
