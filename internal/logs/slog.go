package logs

import (
	"context"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// Slog returns a handler that writes to l, for libraries that log through log/slog. Members of a group become fields
// named group.member.
func Slog(l logrus.FieldLogger) slog.Handler { return &slogHandler{log: l} }

type slogHandler struct {
	log    logrus.FieldLogger
	prefix string
}

// Enabled implements [slog.Handler].
func (h *slogHandler) Enabled(_ context.Context, level slog.Level) bool {
	return enabled(h.log, slogLevel(level))
}

// Handle implements [slog.Handler].
func (h *slogHandler) Handle(_ context.Context, r slog.Record) error {
	f := logrus.Fields{}
	r.Attrs(func(a slog.Attr) bool {
		addAttr(f, h.prefix, a)
		return true
	})
	entry := h.log.WithFields(f)
	if !r.Time.IsZero() {
		entry = entry.WithTime(r.Time)
	}
	entry.Log(slogLevel(r.Level), r.Message)
	return nil
}

// WithAttrs implements [slog.Handler].
func (h *slogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	f := logrus.Fields{}
	for _, a := range attrs {
		addAttr(f, h.prefix, a)
	}
	return &slogHandler{h.log.WithFields(f), h.prefix}
}

// WithGroup implements [slog.Handler].
func (h *slogHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &slogHandler{h.log, h.prefix + name + "."}
}

func addAttr(f logrus.Fields, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			addAttr(f, prefix, member)
		}
		return
	}
	if a.Key != "" {
		f[prefix+a.Key] = v.Any()
	}
}

func slogLevel(l slog.Level) logrus.Level {
	switch {
	case l >= slog.LevelError:
		return logrus.ErrorLevel
	case l >= slog.LevelWarn:
		return logrus.WarnLevel
	case l >= slog.LevelInfo:
		return logrus.InfoLevel
	}
	return logrus.DebugLevel
}
