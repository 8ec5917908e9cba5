package logs

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"
)

const (
	// maxValue is the longest string that a line carries, in bytes. A longer one is data, not a message.
	maxValue = 2048
	// keepOfLong is how much of the start of a longer one stays, so that a person sees what it was.
	keepOfLong = 256
	// minSecret is the shortest string that is hidden.
	minSecret = 6

	hidden = "[hidden]"
)

// errNoRedaction is for a logger that [New] did not make.
var errNoRedaction = errors.New("logs: this logger was not made by logs.New, so nothing can be hidden in it")

var (
	// What goes in front of a credential in headers and URLs, and the credential. A URL's query is where signed
	// links carry theirs (our own, S3's X-Amz-Signature, Azure's sig).
	credentials = []*regexp.Regexp{
		regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}`),
		regexp.MustCompile(`(?i)([?&](?:[\w-]*sig(?:nature)?|[\w-]*token|[\w-]*credential|api_?key|key)=)[^&\s"']+`),
		regexp.MustCompile(`(://[^/\s:@]*:)[^/\s@]+(?:@)`),
	}
	// Image data: a data URI, or a run of base64 that is longer than any name, id or hash.
	imageData = regexp.MustCompile(`data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=_-]*|[A-Za-z0-9+/_-]{256,}={0,2}`)

	secretFields = []string{"authorization", "password", "secret", "token", "api_key", "apikey", "signing_key"}
)

// Hide adds strings that never appear in a line of l again. It fails for a logger that [New] did not make.
func Hide(l *logrus.Logger, secrets ...string) error {
	for _, h := range l.Hooks[logrus.InfoLevel] {
		if r, ok := h.(*redaction); ok {
			r.hide(secrets)
			return nil
		}
	}
	return errNoRedaction
}

// redaction is the hook that every line goes through. logrus hands it a copy of the entry, so changing it is safe.
type redaction struct {
	mu       sync.Mutex
	secrets  []string
	replacer atomic.Pointer[strings.Replacer]
}

func newRedaction(secrets []string) *redaction {
	r := &redaction{}
	r.hide(secrets)
	return r
}

func (r *redaction) hide(secrets []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range secrets {
		if len(s) >= minSecret && !slices.Contains(r.secrets, s) {
			r.secrets = append(r.secrets, s)
		}
	}
	// The longest first: one secret may be the beginning of another.
	slices.SortFunc(r.secrets, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, s := range r.secrets {
		pairs = append(pairs, s, hidden)
	}
	r.replacer.Store(strings.NewReplacer(pairs...))
}

// Levels implements [logrus.Hook].
func (r *redaction) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements [logrus.Hook].
func (r *redaction) Fire(e *logrus.Entry) error {
	e.Message = r.clean(e.Message)
	for k, v := range e.Data {
		if slices.Contains(secretFields, strings.ToLower(k)) {
			e.Data[k] = hidden
			continue
		}
		e.Data[k] = r.value(v)
	}
	return nil
}

// value leaves what cannot carry text as it is and cleans the rest.
func (r *redaction) value(v any) any {
	switch v := v.(type) {
	case nil, bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64:
		return v
	case string:
		return r.clean(v)
	case []byte:
		return fmt.Sprintf("[%d bytes]", len(v))
	case error:
		return r.clean(text(v.Error))
	case fmt.Stringer: // durations, times, URLs and enums among them: their words say more than their JSON
		return r.clean(text(v.String))
	}
	// What prints alike before and after may stay structured.
	b, err := json.Marshal(v)
	if err != nil {
		return r.clean(fmt.Sprintf("%+v", v))
	}
	if s := string(b); r.clean(s) != s {
		return r.clean(s)
	}
	return v
}

// text calls a method of a value that may be a nil pointer in an interface, which must not stop the line.
func text(method func() string) (s string) {
	defer func() {
		if p := recover(); p != nil {
			s = fmt.Sprintf("[panic while printing: %v]", p)
		}
	}()
	return method()
}

func (r *redaction) clean(s string) string {
	return Clean(r.replacer.Load().Replace(s))
}

// Clean takes out of a text what looks like a credential or like data, and bounds its length.
func Clean(s string) string {
	for _, c := range credentials[:2] {
		s = c.ReplaceAllString(s, "${1}"+hidden)
	}
	s = credentials[2].ReplaceAllString(s, "${1}"+hidden+"@")
	if len(s) >= keepOfLong || strings.Contains(s, ";base64,") {
		s = imageData.ReplaceAllStringFunc(s, func(m string) string { return fmt.Sprintf("[%d characters of data]", len(m)) })
	}
	if len(s) > maxValue {
		s = fmt.Sprintf("%s… [%d characters cut]", strings.ToValidUTF8(s[:keepOfLong], ""), len(s)-keepOfLong)
	}
	return s
}
