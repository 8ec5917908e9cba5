package modal

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
)

// query is what follows the question mark of a URL: where it is signed, the signature.
var query = regexp.MustCompile(`(https?://[^\s"?]*)\?[^\s"]*`)

// unsigned passes on what the SDK logs without the queries of URLs: it logs uploads that fail with their signed address
// (v0.11.1, blob.go: retryHTTPRequest).
type unsigned struct{ slog.Handler }

func (h unsigned) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, query.ReplaceAllString(r.Message, "$1"), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Value.Kind() {
		case slog.KindString, slog.KindAny:
			if text := fmt.Sprint(a.Value.Any()); query.MatchString(text) {
				a.Value = slog.StringValue(query.ReplaceAllString(text, "$1"))
			}
		}
		clean.AddAttrs(a)
		return true
	})
	return h.Handler.Handle(ctx, clean)
}

func (h unsigned) WithAttrs(attrs []slog.Attr) slog.Handler {
	return unsigned{h.Handler.WithAttrs(attrs)}
}
func (h unsigned) WithGroup(name string) slog.Handler { return unsigned{h.Handler.WithGroup(name)} }
