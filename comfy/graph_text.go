package comfy

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// member of an object in checked, compact JSON.
type member struct {
	name  []byte // with quotes and escapes
	value []byte
}

// key is the member's name, decoded.
func (m member) key() string { return text(m.name) }

// text decodes a string of checked JSON; a half of a surrogate pair becomes U+FFFD.
func text(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	b, _ := decode(nil, quoted, func(b []byte, _ rune) ([]byte, error) { return utf8.AppendRune(b, utf8.RuneError), nil })
	return string(b)
}

// members splits an object of checked, compact JSON.
func members(object []byte) []member {
	var list []member
	for i := 1; object[i] != '}'; {
		if object[i] == ',' {
			i++
		}
		colon := skip(object, i)
		end := skip(object, colon+1)
		list = append(list, member{object[i:colon:colon], object[colon+1 : end : end]})
		i = end
	}
	return list
}

// skip returns where the value that begins at i ends, in checked, compact JSON.
func skip(b []byte, i int) int {
	depth := 0
	for ; ; i++ {
		switch b[i] {
		case '"':
			i = skipString(b, i) - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			if depth > 0 {
				continue
			}
			for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' {
				i++
			}
			return i
		}
		if depth == 0 {
			return i + 1
		}
	}
}

func skipString(b []byte, i int) int {
	for i++; ; i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

var errHalfPair = errors.New("it holds one half of a UTF-16 surrogate pair")

// unescape decodes a checked JSON string with its quotes and appends it to dst. One half of a surrogate pair, which no
// text can hold, is an error.
func unescape(dst, quoted []byte) ([]byte, error) {
	return decode(dst, quoted, func([]byte, rune) ([]byte, error) { return nil, errHalfPair })
}

// canonical is unescape, with a half of a surrogate pair kept in a form that no other string has.
func canonical(dst, quoted []byte) []byte {
	dst, _ = decode(dst, quoted, func(b []byte, r rune) ([]byte, error) {
		return strconv.AppendInt(append(b, 0xFF), int64(r), 16), nil // 0xFF stands in no UTF-8 text
	})
	return dst
}

func decode(dst, quoted []byte, half func([]byte, rune) ([]byte, error)) ([]byte, error) {
	s := quoted[1 : len(quoted)-1]
	for len(s) > 0 {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...), nil
		}
		dst = append(dst, s[:i]...)
		c := s[i+1]
		s = s[i+2:]
		switch c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, _ := hex4(s)
			s = s[4:]
			if !utf16.IsSurrogate(r) {
				dst = utf8.AppendRune(dst, r)
				continue
			}
			if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
				if low, _ := hex4(s[2:]); utf16.DecodeRune(r, low) != utf8.RuneError {
					dst = utf8.AppendRune(dst, utf16.DecodeRune(r, low))
					s = s[6:]
					continue
				}
			}
			var err error
			if dst, err = half(dst, r); err != nil {
				return nil, err
			}
		default: // the quote, the backslash, the slash
			dst = append(dst, c)
		}
	}
	return dst, nil
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
