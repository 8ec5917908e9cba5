// Package logs makes the one logger of a comfyd process and lends it to the libraries that bring a logger type of their
// own: Temporal's SDK and log/slog. (The adapter for the embedded Temporal server is in internal/embedded, so that this
// package stays free of the server.)
//
// Lines of a job carry its id in the field [CallID]. What must not be in a log is taken out on the way: secrets, and
// values so long that they can only be data.
package logs

import (
	"io"
	"os"
	"time"

	"github.com/sirupsen/logrus"
)

// CallID is the field that holds a job's id: the call_id of the HTTP API, which is the workflow ID in Temporal.
const CallID = "call_id"

// Formats of [Options].
const (
	Text = "text"
	JSON = "json"
)

// Options of [New]. The zero value writes text at level info to standard error.
type Options struct {
	Level  string    // trace, debug, info, warn or error; empty is info
	Format string    // [Text] or [JSON]; empty is text
	Out    io.Writer // nil is os.Stderr
	// Hide lists strings that never appear in a line, such as API keys and tokens. Those shorter than six
	// characters are not hidden, for they would tear every line apart. See also [Hide].
	Hide []string
}

// New makes a logger. A level or format that it does not know is answered with a warning on the logger itself and the
// default, for a process without a log is worse; refuse wrong values where they are read.
//
// JSON lines have "time" (RFC 3339 with nanoseconds, UTC), "level", "msg" and one member for each field.
func New(o Options) *logrus.Logger {
	l := logrus.New()
	l.Out = os.Stderr
	if o.Out != nil {
		l.Out = o.Out
	}
	l.AddHook(newRedaction(o.Hide))

	l.Formatter = &logrus.TextFormatter{FullTimestamp: true, TimestampFormat: time.RFC3339}
	if o.Format == JSON {
		l.Formatter = &utcFormatter{logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano, DisableHTMLEscape: true}}
	}
	if o.Level != "" {
		level, err := logrus.ParseLevel(o.Level)
		if err == nil {
			l.Level = level
		} else {
			l.Warnf("unknown log level %q, using info; allowed: trace, debug, info, warn, error", o.Level)
		}
	}
	if o.Format != "" && o.Format != Text && o.Format != JSON {
		l.Warnf("unknown log format %q, using text; allowed: text, json", o.Format)
	}
	return l
}

// Job returns l with the job's id on every line.
func Job(l logrus.FieldLogger, callID string) logrus.FieldLogger { return l.WithField(CallID, callID) }

// utcFormatter makes lines of machines in different zones comparable as text.
type utcFormatter struct{ logrus.JSONFormatter }

func (f *utcFormatter) Format(e *logrus.Entry) ([]byte, error) {
	e.Time = e.Time.UTC() // e is logrus's own copy, made for this line
	return f.JSONFormatter.Format(e)
}

// enabled tells whether a line of this level would be written, where l can say; building its fields can be saved then.
func enabled(l logrus.FieldLogger, level logrus.Level) bool {
	switch l := l.(type) {
	case *logrus.Logger:
		return l.IsLevelEnabled(level)
	case *logrus.Entry:
		return l.Logger.IsLevelEnabled(level)
	}
	return true
}
