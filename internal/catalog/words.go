package catalog

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// maxShown is how many characters of a client's value come back to it.
const maxShown = 200

// extra makes ExtraInfo of pairs, without those that say nothing.
func extra(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		if list, ok := pairs[i+1].([]string); ok && len(list) == 0 {
			continue
		}
		m[pairs[i].(string)] = pairs[i+1]
	}
	return m
}

func quote(s string) string { return strconv.Quote(shorten(s)) }

func shorten(s string) string {
	n := 0
	for i := range s {
		if n++; n > maxShown {
			return s[:i] + "..."
		}
	}
	return s
}

// show writes a value as JSON, shortened, for a message; received keeps it as it is where it is short.
func show(v any) string {
	if s, ok := v.(string); ok && len(s) > maxShown {
		return quote(s)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return "a value"
	}
	return shorten(strings.TrimSpace(b.String()))
}

func received(v any) any {
	if s := show(v); len(s) >= maxShown {
		return s
	}
	return v
}
