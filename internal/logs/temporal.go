package logs

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/sirupsen/logrus"
	sdklog "go.temporal.io/sdk/log"
)

// Temporal returns a logger for Temporal's SDK that writes to l. The SDK's keys become fields in snake case
// (WorkflowType is workflow_type, Error is error); WorkflowID becomes [CallID], which is what makes the lines of a
// workflow or an activity lines of their job.
func Temporal(l logrus.FieldLogger) sdklog.Logger { return &temporalLogger{l} }

type temporalLogger struct{ log logrus.FieldLogger }

var _ sdklog.WithLogger = (*temporalLogger)(nil)

func (t *temporalLogger) Debug(msg string, keyvals ...any) {
	if enabled(t.log, logrus.DebugLevel) {
		t.log.WithFields(temporalFields(keyvals)).Debug(msg)
	}
}

func (t *temporalLogger) Info(msg string, keyvals ...any) {
	if enabled(t.log, logrus.InfoLevel) {
		t.log.WithFields(temporalFields(keyvals)).Info(msg)
	}
}

func (t *temporalLogger) Warn(msg string, keyvals ...any) {
	t.log.WithFields(temporalFields(keyvals)).Warn(msg)
}

func (t *temporalLogger) Error(msg string, keyvals ...any) {
	t.log.WithFields(temporalFields(keyvals)).Error(msg)
}

// With returns a logger whose every line carries keyvals.
func (t *temporalLogger) With(keyvals ...any) sdklog.Logger {
	return &temporalLogger{t.log.WithFields(temporalFields(keyvals))}
}

func temporalFields(keyvals []any) logrus.Fields {
	f := make(logrus.Fields, len(keyvals)/2+1)
	for i := 0; i < len(keyvals); i += 2 {
		key := TemporalField(fmt.Sprint(keyvals[i]))
		if i+1 == len(keyvals) {
			f[key] = "[no value]"
			break
		}
		f[key] = keyvals[i+1]
	}
	return f
}

// TemporalField is the name in our lines of a key that Temporal's SDK or server logs under.
func TemporalField(key string) string {
	switch key {
	case "WorkflowID", "WorkflowId", "wf-id":
		return CallID
	}
	return snake(key)
}

// snake turns TaskQueue, ActivityID and wf-run-id into task_queue, activity_id and wf_run_id.
func snake(key string) string {
	runes := []rune(key)
	var b strings.Builder
	for i, r := range runes {
		switch {
		case r == '-' || r == ' ':
			b.WriteByte('_')
		case unicode.IsUpper(r):
			afterLower := i > 0 && unicode.IsLower(runes[i-1])
			startsWord := i > 0 && i+1 < len(runes) && unicode.IsUpper(runes[i-1]) && unicode.IsLower(runes[i+1])
			if afterLower || startsWord {
				b.WriteByte('_')
			}
			b.WriteRune(unicode.ToLower(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
