//go:build !noembedded

package embedded

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/sirupsen/logrus"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/log/tag"

	"github.com/comfyd/comfyd/internal/logs"
)

// phase is where the server is in its life. What is alarming while it runs is normal while it starts or stops.
type phase int32

const (
	starting phase = iota
	running
	stopping
)

// serverLogger is the server's log.Logger over ours. It cannot end the process: a fatal line ends the goroutine that
// wrote it and is handed to life.fatal.
//
// The server's INFO (200 to 300 lines a run) is our debug, and its debug is dropped.
type serverLogger struct {
	log  logrus.FieldLogger
	life *life
}

type life struct {
	phase atomic.Int32
	fatal chan string // buffered; the first fatal line is what counts
}

var (
	_ log.Logger     = (*serverLogger)(nil)
	_ log.WithLogger = (*serverLogger)(nil)
)

func newServerLogger(l logrus.FieldLogger) *serverLogger {
	if l == nil {
		silent := logrus.New()
		silent.Out = io.Discard
		l = silent
	}
	return &serverLogger{l.WithField("component", "temporal"), &life{fatal: make(chan string, 1)}}
}

func (l *serverLogger) enter(p phase) { l.life.phase.Store(int32(p)) }

func (l *serverLogger) Debug(string, ...tag.Tag) {}

func (l *serverLogger) Info(msg string, tags ...tag.Tag) { l.write(logrus.DebugLevel, msg, tags) }

func (l *serverLogger) Warn(msg string, tags ...tag.Tag) { l.write(logrus.WarnLevel, msg, tags) }

func (l *serverLogger) Error(msg string, tags ...tag.Tag) { l.write(logrus.ErrorLevel, msg, tags) }

// DPanic is a panic in the server's own tests only.
func (l *serverLogger) DPanic(msg string, tags ...tag.Tag) { l.write(logrus.ErrorLevel, msg, tags) }

func (l *serverLogger) Panic(msg string, tags ...tag.Tag) { l.Fatal(msg, tags...) }

// Fatal does not return, for the code after it rests on that, and does not exit. runtime.Goexit runs what was deferred;
// fx, which starts the services, reports it as an error of that service.
func (l *serverLogger) Fatal(msg string, tags ...tag.Tag) {
	l.write(logrus.ErrorLevel, msg, tags)
	select {
	case l.life.fatal <- describe(msg, tags):
	default:
	}
	runtime.Goexit()
}

// With implements [log.WithLogger].
func (l *serverLogger) With(tags ...tag.Tag) log.Logger {
	return &serverLogger{l.log.WithFields(fields(tags)), l.life}
}

func (l *serverLogger) write(level logrus.Level, msg string, tags []tag.Tag) {
	if level < logrus.DebugLevel && l.harmless(level, msg, tags) {
		level = logrus.DebugLevel
	}
	if e, ok := l.log.(*logrus.Entry); ok && !e.Logger.IsLevelEnabled(level) {
		return
	}
	entry := l.log.WithFields(fields(tags))
	switch level {
	case logrus.DebugLevel:
		entry.Debug(msg)
	case logrus.WarnLevel:
		entry.Warn(msg)
	default:
		entry.Error(msg)
	}
}

// harmless tells noise from news. What is listed here was seen in healthy starts, runs and stops, and nowhere else.
func (l *serverLogger) harmless(level logrus.Level, msg string, tags []tag.Tag) bool {
	if strings.HasPrefix(msg, "HTTP API port has not been set") { // we want none
		return true
	}
	switch phase(l.life.phase.Load()) {
	case starting: // the services look for each other
		return mentions(msg, tags, "Frontend is not healthy yet", "connection refused")
	case stopping: // the services miss each other
		return level == logrus.WarnLevel || mentions(msg, tags, "connection refused", "context canceled", "closing transport", "transport is closing")
	}
	return false
}

func mentions(msg string, tags []tag.Tag, phrases ...string) bool {
	text := msg
	for _, t := range tags {
		if t.Key() == "error" {
			text += " " + fmt.Sprint(t.Value())
		}
	}
	return slices.ContainsFunc(phrases, func(p string) bool { return strings.Contains(text, p) })
}

func fields(tags []tag.Tag) logrus.Fields {
	f := make(logrus.Fields, len(tags))
	for _, t := range tags {
		key := logs.TemporalField(t.Key())
		if key == "level" || key == "msg" || key == "time" {
			key = "temporal_" + key
		}
		f[key] = t.Value()
	}
	return f
}

func describe(msg string, tags []tag.Tag) string {
	var b strings.Builder
	b.WriteString(msg)
	for _, t := range tags {
		if k := t.Key(); k == "error" || k == "address" || k == "service" {
			fmt.Fprintf(&b, ", %s %v", k, t.Value())
		}
	}
	return oneLine(b.String())
}
