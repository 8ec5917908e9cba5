package comfy

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Python's json module refuses integers of more digits (sys.int_info.default_max_str_digits), and ComfyUI then answers 500.
const maxDigits = 4300

// scanner reads one JSON document, refuses what ComfyUI's Python would read otherwise than the client meant it, and
// writes a copy without white space. It visits each byte once.
type scanner struct {
	src  []byte
	pos  int
	out  []byte
	keys int // members of objects seen so far
	path []step
}

// step is one level of where the scanner is: a key (as it stands in the source, unquoted), or an index.
type step struct {
	key   []byte
	index int
}

// compact checks src, which must be valid UTF-8, and returns it without white space.
func compact(src []byte) ([]byte, error) {
	s := &scanner{src: src, out: make([]byte, 0, len(src))}
	s.space()
	if err := s.value(0); err != nil {
		return nil, err
	}
	s.space()
	if s.pos < len(s.src) {
		return nil, s.errorf("the JSON ends here, but more follows: send one object and nothing after it")
	}
	return s.out[:len(s.out):len(s.out)], nil
}

// errorf names the place: line, column and the path of keys that leads there.
func (s *scanner) errorf(format string, args ...any) error {
	line := 1 + bytes.Count(s.src[:s.pos], []byte{'\n'})
	column := 1 + utf8.RuneCount(s.src[bytes.LastIndexByte(s.src[:s.pos], '\n')+1:s.pos])
	at := fmt.Sprintf("line %d, column %d", line, column)
	if len(s.path) > 0 {
		at += ", in " + s.where()
	}
	return fmt.Errorf("%s: %s", at, fmt.Sprintf(format, args...))
}

func (s *scanner) where() string {
	const most = 8
	steps, b := s.path, strings.Builder{}
	if len(steps) > most {
		steps = steps[:most]
	}
	for i, st := range steps {
		switch {
		case st.key == nil:
			fmt.Fprintf(&b, "[%d]", st.index)
		case i == 0:
			b.WriteString(clip(string(st.key)))
		default:
			b.WriteString("." + clip(string(st.key)))
		}
	}
	if len(s.path) > most {
		b.WriteString("...")
	}
	return b.String()
}

func (s *scanner) space() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int) error {
	if s.pos >= len(s.src) {
		return s.errorf("the JSON breaks off: a value is missing")
	}
	switch c := s.src[s.pos]; {
	case c == '{' || c == '[':
		if depth++; depth > MaxDepth {
			return s.errorf("nested deeper than %d levels", MaxDepth)
		}
		if c == '{' {
			return s.object(depth)
		}
		return s.array(depth)
	case c == '"':
		_, err := s.str()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	case c == 'N' || c == 'I':
		return s.errorf("NaN and Infinity are not JSON: give a finite number")
	default:
		return s.errorf("invalid JSON: %s where a value should begin", char(s.src[s.pos:]))
	}
}

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.src[s.pos:], []byte(w)) {
		return s.errorf("invalid JSON: a value that is neither quoted nor a number must be true, false or null")
	}
	s.out = append(s.out, w...)
	s.pos += len(w)
	return nil
}

func (s *scanner) array(depth int) error {
	s.pos++
	s.out = append(s.out, '[')
	s.path = append(s.path, step{})
	for i := 0; ; i++ {
		s.space()
		if i == 0 && s.at(']') {
			break
		}
		s.path[len(s.path)-1].index = i
		if err := s.value(depth); err != nil {
			return err
		}
		s.space()
		if s.at(']') {
			break
		}
		if !s.at(',') {
			return s.errorf("invalid JSON: a list goes on with a comma or ends with ], not with %s", char(s.src[s.pos:]))
		}
		s.pos++
		s.out = append(s.out, ',')
	}
	s.pos++
	s.out = append(s.out, ']')
	s.path = s.path[:len(s.path)-1]
	return nil
}

func (s *scanner) object(depth int) error {
	s.pos++
	s.out = append(s.out, '{')
	s.path = append(s.path, step{key: []byte{}})
	var seen keySet
	for i := 0; ; i++ {
		s.space()
		if i == 0 && s.at('}') {
			break
		}
		if !s.at('"') {
			return s.errorf("invalid JSON: a key in double quotes should stand here, not %s", char(s.src[s.pos:]))
		}
		start := s.pos
		raw, err := s.str()
		if err != nil {
			return err
		}
		key := raw[1 : len(raw)-1]
		if bytes.IndexByte(key, '\\') >= 0 {
			if key, err = unescape(nil, raw); err != nil {
				s.pos = start
				return s.errorf("the key %s cannot be read: %v", clip(string(raw)), err)
			}
		}
		if !seen.add(key) {
			s.pos = start
			return s.errorf("the key %q stands twice in the same object", clip(string(key)))
		}
		if s.keys++; s.keys > MaxKeys {
			return s.errorf("more than %d keys", MaxKeys)
		}
		s.path[len(s.path)-1].key = key
		s.space()
		if !s.at(':') {
			return s.errorf("invalid JSON: a colon should follow the key, not %s", char(s.src[s.pos:]))
		}
		s.pos++
		s.out = append(s.out, ':')
		s.space()
		if err := s.value(depth); err != nil {
			return err
		}
		s.space()
		if s.at('}') {
			break
		}
		if !s.at(',') {
			return s.errorf("invalid JSON: an object goes on with a comma or ends with }, not with %s", char(s.src[s.pos:]))
		}
		s.pos++
		s.out = append(s.out, ',')
		if depth == 1 && i+1 >= MaxNodes {
			return s.errorf("more than %d nodes", MaxNodes)
		}
	}
	s.pos++
	s.out = append(s.out, '}')
	s.path = s.path[:len(s.path)-1]
	return nil
}

func (s *scanner) at(c byte) bool { return s.pos < len(s.src) && s.src[s.pos] == c }

// str copies one string with its quotes and escapes as they are, and returns it.
func (s *scanner) str() ([]byte, error) {
	start := s.pos
	for i := start + 1; i < len(s.src); i++ {
		switch c := s.src[i]; {
		case c == '"':
			s.pos = i + 1
			s.out = append(s.out, s.src[start:s.pos]...)
			return s.src[start:s.pos], nil
		case c < 0x20:
			s.pos = i
			return nil, s.errorf("invalid JSON: the control character %q inside a string must be escaped", c)
		case c == '\\':
			i++
			if i < len(s.src) && s.src[i] == 'u' {
				if _, ok := hex4(s.src[i+1:]); ok {
					i += 4
					continue
				}
			} else if i < len(s.src) && strings.IndexByte(`"\/bfnrt`, s.src[i]) >= 0 {
				continue
			}
			s.pos = i - 1
			return nil, s.errorf("invalid JSON: a backslash inside a string must begin one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX")
		}
	}
	s.pos = len(s.src)
	return nil, s.errorf("the JSON breaks off inside a string")
}

func (s *scanner) number() error {
	start, i := s.pos, s.pos
	digits := func() int {
		from := i
		for i < len(s.src) && s.src[i] >= '0' && s.src[i] <= '9' {
			i++
		}
		return i - from
	}
	if s.src[i] == '-' {
		i++
	}
	first := i
	whole, integer := digits(), true
	ok := whole > 0 && (whole == 1 || s.src[first] != '0')
	if ok && i < len(s.src) && s.src[i] == '.' {
		i++
		integer, ok = false, digits() > 0
	}
	if ok && i < len(s.src) && (s.src[i] == 'e' || s.src[i] == 'E') {
		i++
		if i < len(s.src) && (s.src[i] == '+' || s.src[i] == '-') {
			i++
		}
		integer, ok = false, digits() > 0
	}
	if !ok {
		if bytes.HasPrefix(s.src[start:], []byte("-Infinity")) {
			return s.errorf("NaN and Infinity are not JSON: give a finite number")
		}
		return s.errorf("invalid JSON: not a number as JSON writes it")
	}
	if integer && whole > maxDigits {
		return s.errorf("an integer of %d digits: ComfyUI reads at most %d", whole, maxDigits)
	}
	token := s.src[start:i]
	if !integer {
		// Python reads what overflows as inf, which no node expects and which comes back as invalid JSON.
		if _, err := strconv.ParseFloat(string(token), 64); err != nil {
			return s.errorf("the number %s is too large: ComfyUI would read it as infinite", clip(string(token)))
		}
	}
	s.out = append(s.out, token...)
	s.pos = i
	return nil
}

// char names the first character of b for an error.
func char(b []byte) string {
	if len(b) == 0 {
		return "the end"
	}
	r, _ := utf8.DecodeRune(b)
	return strconv.QuoteRune(r)
}

// clip shortens what a client sent so that an error stays readable.
func clip(s string) string {
	const most = 60
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i] + "..."
		}
	}
	return s
}
