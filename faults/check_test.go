package faults

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"image"
	"image/png"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// call is an event that began and ended at second n.
func call(n int, method, path, job string, code int, body map[string]any) *Event {
	at := began.Add(time.Duration(n) * time.Second)
	return &Event{Began: at, Ended: at, Tenant: "alice", Method: method, Path: path, Job: job, Code: code, Body: body}
}

func accepted(n int, job string) *Event {
	return call(n, "POST", "/submit_workflow", job, 202, map[string]any{"id": job, "status": "RUNNING"})
}

func poll(n int, job string, code int, body map[string]any) *Event {
	return call(n, "GET", "/status/"+job, job, code, body)
}

func picture(t *testing.T) map[string]any {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, image.NewGray(image.Rect(0, 0, 4, 4))))
	return output(b.Bytes())
}

func output(raw []byte) map[string]any {
	sum := sha256.Sum256(raw)
	return map[string]any{"filename": "a.png", "type": "base64", "content_type": "image/png", "size_bytes": float64(len(raw)),
		"sha256": hex.EncodeToString(sum[:]), "data": base64.StdEncoding.EncodeToString(raw)}
}

func completed(images ...any) map[string]any {
	return map[string]any{"id": "a", "status": "COMPLETED", "attempts": 1.0, "output": map[string]any{"images": images}}
}

func failed() map[string]any {
	return map[string]any{"id": "a", "status": "FAILED", "attempts": 1.0, "code": "timeout"}
}

// TestCheck gives the checker histories with one thing wrong each: it must name that, and nothing else.
func TestCheck(t *testing.T) {
	good := func() *Evidence {
		return &Evidence{Within: time.Minute, Jobs: 1, Runs: map[string]int{"a": 1}, Told: []string{"a"},
			Messages: []Message{{Job: "a", ID: "msg_1"}, {Job: "a", ID: "msg_1", Taken: true}, {Job: "elsewhere", ID: "msg_3"}},
			Events: []*Event{
				accepted(0, "a"),
				poll(1, "a", 202, map[string]any{"id": "a", "status": "RUNNING"}),
				poll(2, "a", 503, map[string]any{"error": "x"}),
				poll(3, "a", 200, completed(picture(t))),
				poll(4, "a", 200, completed(picture(t))),
				{Began: began, Ended: began, Tenant: "bob", Method: "GET", Path: "/status/a", Job: "a", Code: 404, Body: map[string]any{"error": notFound}},
			}}
	}
	require.Empty(t, Check(good()))
	told := good()
	told.Messages[1].Data = completed(picture(t))
	delete(told.Messages[1].Data["output"].(map[string]any)["images"].([]any)[0].(map[string]any), "data")
	require.Empty(t, Check(told), "a receiver is told the status, with links in place of bytes")
	change := func(i int, key string, value any) func(*Evidence) {
		return func(e *Evidence) {
			img := e.Events[i].Body["output"].(map[string]any)["images"].([]any)[0].(map[string]any)
			img[key] = value
		}
	}
	for name, c := range map[string]struct {
		want  string
		spoil func(e *Evidence)
	}{
		"never ends":         {"I1", func(e *Evidence) { e.Events = e.Events[:3] }},
		"ends too late":      {"I1", func(e *Evidence) { e.Within = time.Second }},
		"forgotten":          {"I1", func(e *Evidence) { e.Events[2].Code = 404 }},
		"says nothing":       {"I1", func(e *Evidence) { e.Events[1].Body = map[string]any{} }},
		"not in Temporal":    {"I1", func(e *Evidence) { e.Jobs = 0 }},
		"runs after its end": {"I2", func(e *Evidence) { e.Events = append(e.Events, poll(5, "a", 202, e.Events[1].Body)) }},
		"gone after its end": {"I2", func(e *Evidence) { e.Events = append(e.Events, poll(5, "a", 404, map[string]any{"error": notFound})) }},
		"ends twice":         {"I2", func(e *Evidence) { e.Events = append(e.Events, poll(5, "a", 200, failed())) }},
		"a cancel that lied": {"I2", func(e *Evidence) {
			e.Events = append(e.Events, call(1, "POST", "/cancel/a", "a", 200, map[string]any{"id": "a", "status": "FAILED"}))
		}},
		"more attempts, later": {"I2", func(e *Evidence) { e.Events[4].Body["attempts"] = 2.0 }},
		"nobody asked again":   {"I2", func(e *Evidence) { e.Events = e.Events[:4] }},
		"other bytes":          {"I3", func(e *Evidence) { change(3, "sha256", "00")(e); change(4, "sha256", "00")(e) }},
		"other bytes, later": {"I3", func(e *Evidence) {
			e.Events[4].Body["output"].(map[string]any)["images"].([]any)[0].(map[string]any)["data"] = "AAAA"
		}},
		"no bytes":           {"I3", change(3, "data", nil)},
		"success of nothing": {"I3", func(e *Evidence) { e.Events[3].Body, e.Events[4].Body = completed(), completed() }},
		"no picture": {"I3", func(e *Evidence) {
			e.Events[3].Body, e.Events[4].Body = completed(output([]byte("x"))), completed(output([]byte("x")))
		}},
		"cut off":                {"I3", func(e *Evidence) { e.Events[3].Body, e.Events[4].Body = completed(cut(t)), completed(cut(t)) }},
		"ran twice":              {"I4", func(e *Evidence) { e.Runs["a"] = 2 }},
		"seen by another":        {"I6", func(e *Evidence) { e.Events[5].Code, e.Events[5].Body = 200, completed() }},
		"told from another":      {"I6", func(e *Evidence) { e.Events[5].Body = map[string]any{"error": "It is alice's."} }},
		"canceled by another":    {"I6", func(e *Evidence) { e.Events[5].Method, e.Events[5].Code = "POST", 202 }},
		"a job nobody asked":     {"I7", func(e *Evidence) { e.Jobs = 2 }},
		"one key, two jobs":      {"I7", twoJobs},
		"nobody was told":        {"I5", func(e *Evidence) { e.Messages = e.Messages[:1] }},
		"a forged message":       {"I5", func(e *Evidence) { e.Messages[1].Err = errors.New("no matching signature") }},
		"a message with two ids": {"I5", func(e *Evidence) { e.Messages[1].ID = "msg_2" }},
		"two jobs, one message":  {"I5", func(e *Evidence) { e.Messages[2].ID = "msg_1" }},
		"told something else":    {"I5", func(e *Evidence) { e.Messages[1].Data = failed() }},
		"a file somewhere else":  {"I8", func(e *Evidence) { e.Stray = []string{"/tmp/x"} }},
		"a secret": {"I9", func(e *Evidence) {
			e.Texts, e.Secrets = map[string][]byte{"log": []byte("key=hunter2")}, map[string][]byte{"API key": []byte("hunter2")}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			e := good()
			c.spoil(e)
			found := Check(e)
			require.NotEmpty(t, found)
			for _, v := range found {
				require.Equal(t, c.want, v.Invariant, "%v", found)
			}
		})
	}
}

// cut is a picture without its end, described as such.
func cut(t *testing.T) map[string]any {
	raw, err := base64.StdEncoding.DecodeString(picture(t)["data"].(string))
	require.NoError(t, err)
	return output(raw[:len(raw)-20])
}

// twoJobs repeats a submission under its key, and gets another job.
func twoJobs(e *Evidence) {
	second := accepted(0, "b")
	e.Events[0].Key, second.Key = "k", "k"
	e.Jobs = 2
	b := completed()
	b["output"] = e.Events[3].Body["output"]
	e.Events = append(e.Events, second, poll(1, "b", 200, b), poll(2, "b", 200, b))
}

// TestCheckOfUnknownSubmissions: a submission without an answer may or may not have become a job.
func TestCheckOfUnknownSubmissions(t *testing.T) {
	lost := call(0, "POST", "/submit_workflow", "", 0, nil)
	for _, jobs := range []int{0, 1} {
		require.Empty(t, Check(&Evidence{Events: []*Event{lost}, Jobs: jobs}))
	}
	require.NotEmpty(t, Check(&Evidence{Events: []*Event{lost}, Jobs: 2}))
	keyed := call(0, "POST", "/submit_workflow", "", 0, nil)
	keyed.Key = "k"
	again := accepted(1, "a")
	again.Key = "k"
	end := []*Event{keyed, again, poll(2, "a", 200, failed()), poll(3, "a", 200, failed())}
	require.Empty(t, Check(&Evidence{Events: end, Jobs: 1, Within: time.Minute}))
	require.NotEmpty(t, Check(&Evidence{Events: end, Jobs: 2, Within: time.Minute}), "the repetition was to find the same job")
}

// TestCheckOfRefusedSubmissions: what a 503 has started all the same must be canceled.
func TestCheckOfRefusedSubmissions(t *testing.T) {
	refused := []*Event{call(0, "POST", "/submit_workflow", "", 503, map[string]any{"code": "unavailable"})}
	require.Empty(t, Check(&Evidence{Events: refused}))
	require.Empty(t, Check(&Evidence{Events: refused, Jobs: 1, Withdrawn: 1}))
	require.NotEmpty(t, Check(&Evidence{Events: refused, Jobs: 1}), "it was not canceled")
	require.NotEmpty(t, Check(&Evidence{Events: refused, Jobs: 2, Withdrawn: 2}), "nobody asked for the second one")
	refused[0].Key = "k"
	require.NotEmpty(t, Check(&Evidence{Events: refused, Jobs: 1, Withdrawn: 1}), "it has a key")
}

// TestState: only a whole answer with the right status is an end.
func TestState(t *testing.T) {
	require.Equal(t, "RUNNING", (&Event{Code: http.StatusAccepted, Body: map[string]any{"status": "RUNNING"}}).State())
	require.Equal(t, "", (&Event{Code: http.StatusOK, Body: map[string]any{"status": "RUNNING"}}).State())
	require.Equal(t, "FAILED", (&Event{Code: http.StatusOK, Body: failed()}).State())
	require.Equal(t, "", (&Event{Code: http.StatusInternalServerError, Body: failed()}).State())
}
