package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	sdklog "go.temporal.io/sdk/log"
)

// capture returns a JSON logger and a function that gives its lines so far.
func capture(t *testing.T, o Options) (*logrus.Logger, func() []map[string]any) {
	var out bytes.Buffer
	o.Out = &out
	o.Format = JSON
	return New(o), func() []map[string]any {
		var lines []map[string]any
		for line := range strings.Lines(out.String()) {
			var m map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &m), line)
			lines = append(lines, m)
		}
		return lines
	}
}

func TestJSONShape(t *testing.T) {
	l, lines := capture(t, Options{})
	l.WithFields(logrus.Fields{"backend": "url", "n": 3, "took": 1500 * time.Millisecond, "ok": true}).
		WithError(errors.New("a <b> & c")).Warn("job put aside")
	l.Debug("not at level info")

	require.Len(t, lines(), 1)
	line := lines()[0]
	at, err := time.Parse(time.RFC3339Nano, line["time"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), at, time.Minute)
	require.True(t, strings.HasSuffix(line["time"].(string), "Z"), "UTC: %s", line["time"])
	delete(line, "time")
	require.Equal(t, map[string]any{
		"level": "warning", "msg": "job put aside", "backend": "url", "n": 3.0, "took": "1.5s", "ok": true, "error": "a <b> & c",
	}, line)
}

func TestTextShape(t *testing.T) {
	var out bytes.Buffer
	Job(New(Options{Out: &out}), "j-1").Info("submitted")
	require.Regexp(t, `^time="[0-9T:+Z-]+" level=info msg=submitted call_id=j-1\n$`, out.String())
}

func TestLevels(t *testing.T) {
	for _, tt := range []struct {
		level string
		want  logrus.Level
		lines int
	}{
		{"", logrus.InfoLevel, 0}, {"debug", logrus.DebugLevel, 0}, {"error", logrus.ErrorLevel, 0}, {"loud", logrus.InfoLevel, 1},
	} {
		l, lines := capture(t, Options{Level: tt.level})
		require.Equal(t, tt.want, l.Level, tt.level)
		require.Len(t, lines(), tt.lines, tt.level)
	}
	var out bytes.Buffer
	New(Options{Out: &out, Format: "xml"})
	require.Contains(t, out.String(), `unknown log format \"xml\"`)
}

type hasURL struct{ Link string }

func TestSecretsAreHidden(t *testing.T) {
	const key = "sk-abcdefgh" // hidden because it was named
	link, err := url.Parse("https://u:pa55word@host/x?X-Amz-Signature=beefbeef&n=1")
	require.NoError(t, err)
	for name, v := range map[string]any{
		"a named secret":         "the key is " + key + ".",
		"inside an error":        errors.New("401 for " + key),
		"inside a struct":        hasURL{"http://h/?k=" + key},
		"inside a list":          []string{key},
		"a bearer header":        "Authorization: Bearer pa55word-beefbeef",
		"a URL with credentials": link,
		"a signed link":          "GET /outputs/a.png?expires=1&sig=beefbeef",
	} {
		t.Run(name, func(t *testing.T) {
			l, lines := capture(t, Options{Hide: []string{key, "abc"}})
			l.WithField("v", v).Info("in a field")
			l.Info("in the message: ", v)
			for _, line := range lines() {
				text := fmt.Sprint(line)
				require.Contains(t, text, hidden)
				for _, secret := range []string{key, "pa55word", "beefbeef"} {
					require.NotContains(t, text, secret)
				}
			}
		})
	}
}

func TestSecretFields(t *testing.T) {
	l, lines := capture(t, Options{})
	l.WithFields(logrus.Fields{"Authorization": "x", "password": 1, "keys": "seven"}).Info("")
	require.Equal(t, hidden, lines()[0]["Authorization"])
	require.Equal(t, hidden, lines()[0]["password"])
	require.Equal(t, "seven", lines()[0]["keys"])
}

func TestHideLater(t *testing.T) {
	l, lines := capture(t, Options{Hide: []string{"secret-1"}})
	require.NoError(t, Hide(l, "secret-12345", "abc"))
	l.Info("secret-12345 secret-1 abc")
	require.Equal(t, hidden+" "+hidden+" abc", lines()[0]["msg"], "the longer first, and nothing below six characters")
	require.ErrorIs(t, Hide(logrus.New(), "secret-1"), errNoRedaction)
}

func TestLongValuesAreCut(t *testing.T) {
	data := strings.Repeat("iVBORw0KGgo", 40)
	l, lines := capture(t, Options{})
	l.WithFields(logrus.Fields{
		"prose":  strings.Repeat("much ado, ", 1000),
		"image":  "before " + data + "== after",
		"uri":    "data:image/png;base64,iVBORw0KGgo=",
		"bytes":  []byte(data),
		"nested": map[string]any{"workflow": map[string]any{"image": data}},
		"small":  map[string]any{"a": 1},
		"err":    errors.New(data),
		"utf8":   strings.Repeat("ä ", 4000),
	}).Info(strings.Repeat("x ", 5000))

	line := lines()[0]
	require.Equal(t, "before [442 characters of data] after", line["image"])
	require.Equal(t, "[34 characters of data]", line["uri"])
	require.Equal(t, "[440 bytes]", line["bytes"])
	require.Equal(t, `{"workflow":{"image":"[440 characters of data]"}}`, line["nested"])
	require.Equal(t, map[string]any{"a": 1.0}, line["small"], "what is short stays structured")
	require.Equal(t, "[440 characters of data]", line["err"])
	for _, k := range []string{"prose", "utf8", "msg"} {
		require.Less(t, len(line[k].(string)), maxValue, k)
		require.Contains(t, line[k], "characters cut]", k)
	}
}

func TestOddValues(t *testing.T) {
	var none *url.URL // its String method panics
	l, lines := capture(t, Options{})
	l.WithFields(logrus.Fields{"none": none, "chan": map[string]any{"c": make(chan int)}}).Info("still written")
	require.Equal(t, "still written", lines()[0]["msg"])
	require.Contains(t, lines()[0]["none"], "panic while printing")
}

func TestCallerFieldsAreNotChanged(t *testing.T) {
	l, lines := capture(t, Options{Hide: []string{"secret-1"}})
	entry := l.WithField("k", "secret-1")
	entry.Info("one")
	require.Equal(t, "secret-1", entry.Data["k"], "the hook works on its own copy")
	require.Equal(t, hidden, lines()[0]["k"])
}

func TestTemporal(t *testing.T) {
	l, lines := capture(t, Options{Level: "debug"})
	base := Temporal(l)
	with := sdklog.With(base, "WorkflowID", "job-1", "RunID", "r", "TaskQueue", "comfyui")
	with.Debug("d", "ActivityID", 5)
	with.Info("i")
	with.Warn("w", "Attempt", 2, "Error", errors.New("lost"))
	with.Error("e", "odd")
	base.Info("of the worker", "WorkerID", "w")

	got := lines()
	require.Len(t, got, 5)
	for i, level := range []string{"debug", "info", "warning", "error", "info"} {
		require.Equal(t, level, got[i]["level"])
	}
	for _, line := range got[:4] {
		require.Equal(t, "job-1", line[CallID], "every line of a job has its id")
		require.Equal(t, "comfyui", line["task_queue"])
		require.Equal(t, "r", line["run_id"])
	}
	require.Equal(t, 5.0, got[0]["activity_id"])
	require.Equal(t, "lost", got[2]["error"])
	require.Equal(t, "[no value]", got[3]["odd"])
	require.NotContains(t, got[4], CallID, "With does not change the logger that it was called on")
}

func TestTemporalField(t *testing.T) {
	for key, want := range map[string]string{
		"WorkflowID": CallID, "wf-id": CallID, "WorkflowType": "workflow_type", "Error": "error", "RunID": "run_id",
		"wf-run-id": "wf_run_id", "ABCName": "abc_name", "attempt": "attempt",
	} {
		require.Equal(t, want, TemporalField(key))
	}
}

func TestSlog(t *testing.T) {
	var lines func() []map[string]any
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		if strings.HasSuffix(t.Name(), "/zero-time") {
			t.Skip("logrus gives every line a time")
		}
		var l *logrus.Logger
		l, lines = capture(t, Options{Level: "debug"})
		return Slog(l)
	}, func(t *testing.T) map[string]any { return nest(lines()[0]) })

	l, lines := capture(t, Options{Level: "warn"})
	slog.New(Slog(l)).Info("below the level")
	slog.New(Slog(Job(l, "j-1"))).Error("above", "err", errors.New("why"))
	require.Len(t, lines(), 1)
	require.Equal(t, "j-1", lines()[0][CallID])
	require.Equal(t, "error", lines()[0]["level"])
}

// nest gives slogtest the groups that it expects, from our dotted names.
func nest(line map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range line {
		m, parts := out, strings.Split(k, ".")
		for _, p := range parts[:len(parts)-1] {
			if m[p] == nil {
				m[p] = map[string]any{}
			}
			m = m[p].(map[string]any)
		}
		m[parts[len(parts)-1]] = v
	}
	return out
}
